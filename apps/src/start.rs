//! Starting the stack from a program's arguments.
//!
//! Called once, by `main`. What can be foreseen fails in [`preflight`](crate::preflight), the rest in
//! the library; either way the error is a sentence for people.

use std::error::Error;

use prequeue::Stack;

use crate::{args::Network, preflight};

/// Brings up DPDK with the EAL arguments and the stack on its port.
///
/// # Errors
/// What stands in the way, in a sentence, and what to do about it.
pub fn start(eal: Vec<String>, network: &Network) -> Result<Stack, Box<dyn Error>> {
    preflight::check(&eal)?;
    let mut builder =
        Stack::builder().eal_args(eal).address(network.address.address, network.address.prefix);
    if let Some(gateway) = network.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(mac) = network.mac {
        builder = builder.mac(mac);
    }
    if let Some(mtu) = network.mtu {
        builder = builder.mtu(mtu);
    }
    Ok(builder.start()?)
}
