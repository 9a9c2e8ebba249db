//! Starting the stack from a program's arguments.
//!
//! Called once, by `main`. What can go wrong here is told by the library's own errors, which are
//! sentences for people and say what to do.

use std::error::Error;

use prequeue::Stack;

use crate::args::Network;

/// Brings up DPDK with the EAL arguments and the stack on its port.
///
/// # Errors
/// What stands in the way.
pub fn start(eal: Vec<String>, network: &Network) -> Result<Stack, Box<dyn Error>> {
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
