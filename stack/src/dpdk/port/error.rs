//! Why a port cannot be had: for people to read, with what to do.
//!
//! Made where a port is set up and started, by the thread that does; never while packets run.

use crate::dpdk::port_id::PortId;

/// Why a port could not be set up or started.
///
/// Each says in a sentence what is wrong and what to do, for people to read.
///
/// ```no_run
/// use prequeue::dpdk::{Port, PortConfig, PortError, PortId};
///
/// fn up_to_two_queues(id: PortId, config: PortConfig) -> Result<Port, PortError> {
///     match Port::configure(id, config.clone()) {
///         Err(PortError::TooManyQueues { .. } | PortError::NoRss { .. }) => {
///             let pools = config.pools[..1].to_vec();
///             Port::configure(id, PortConfig { pools, ..config })
///         }
///         other => other,
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// There is no such port.
    #[error("there is no port {0}")]
    NoSuchPort(PortId),
    /// A port is set up once at a time.
    #[error("{0} is in use already")]
    InUse(PortId),
    /// No pool was given, so no queue was asked for.
    #[error("a port needs at least one queue, that is one pool")]
    NoQueues,
    /// More queues than the device has.
    #[error(
        "{port} has at most {have} queues, {want} were asked for: use as many lcores, or give the device more (rx_queues= where its driver has such an option)"
    )]
    TooManyQueues {
        /// The port.
        port: PortId,
        /// Queues asked for.
        want: usize,
        /// Queues it has, RX or TX, whichever are fewer.
        have: usize,
    },
    /// Several queues, and nothing to spread packets over them.
    #[error("{port} (driver {driver}) cannot spread TCP over several queues: use one lcore")]
    NoRss {
        /// The port.
        port: PortId,
        /// Its driver.
        driver: String,
    },
    /// A frame of that MTU does not fit an mbuf, and the device does not scatter it over several.
    #[error(
        "a frame of MTU {mtu} does not fit the pool's buffers, which take frames of {room} bytes, and the device does not scatter it over several: give the pool a larger data room"
    )]
    MtuTooLarge {
        /// MTU asked for, or the device's.
        mtu: u16,
        /// Bytes of frame that a buffer takes.
        room: u32,
    },
    /// The device does not take frames of that MTU.
    #[error("{port} takes an MTU of at most {most}, {mtu} was asked for")]
    MtuOverDevice {
        /// The port.
        port: PortId,
        /// MTU asked for.
        mtu: u16,
        /// The largest.
        most: u16,
    },
    /// The driver refused.
    #[error("{port}: {step} failed: {reason}")]
    Driver {
        /// The port.
        port: PortId,
        /// What was being done.
        step: &'static str,
        /// DPDK's word for the error.
        reason: String,
    },
}
