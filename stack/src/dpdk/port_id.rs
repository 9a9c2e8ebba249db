//! The number of a port, and what can be asked about it before it is set up.
//!
//! Any thread may ask, once the EAL is up. Nothing here changes a port.

use std::ffi::{CStr, c_char};
use std::fmt;

use dpdk_sys as sys;

/// Number of a port.
///
/// ```no_run
/// use prequeue::dpdk::Eal;
///
/// fn number_of(eal: &Eal, name: &str) -> Option<u16> {
///     let port = eal.ports().into_iter().find(|port| port.name().as_deref() == Some(name))?;
///     Some(port.number())
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortId(u16);

impl PortId {
    pub(super) fn new(id: u16) -> Self {
        Self(id)
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The device's name: a PCI address, or what `--vdev` said.
    pub fn name(self) -> Option<String> {
        let mut name = [0 as c_char; sys::RTE_ETH_NAME_MAX_LEN as usize];
        // SAFETY: the buffer has the length that the call may write.
        unsafe {
            let ret = sys::rte_eth_dev_get_name_by_port(self.0, name.as_mut_ptr());
            (ret == 0).then(|| CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
        }
    }

    /// Whether the device can scatter a frame over several mbufs that is longer than one.
    pub fn scatters(self) -> bool {
        let mut info = sys::pqs_port_info::default();
        // SAFETY: any number may be asked about; a place for the answer.
        unsafe {
            sys::rte_eth_dev_is_valid_port(self.0) != 0
                && sys::pqs_port_info(self.0, &mut info) == 0
                && info.rx_scatter
        }
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "port {} ({name})", self.0),
            None => write!(f, "port {}", self.0),
        }
    }
}
