//! What keeps a port open: shared by its handle and its queues, the last of which closes it.
//!
//! Made by the thread that sets the port up and dropped by whoever is last. It also sees to it that a
//! port is set up once at a time.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys as sys;

use super::PortError;
use crate::dpdk::mempool::Mempool;
use crate::dpdk::port_id::PortId;

/// What the port's handle and all its queues share. The last to go closes the port.
pub(super) struct PortCore {
    pub id: PortId,
    pub started: Mutex<bool>,
    // In order: the port is closed by `drop`, then its pools may go, then what it was made of, and
    // only then may somebody else have its number.
    pub pools: Vec<Mempool>,
    pub _keep: Option<Arc<dyn Any + Send + Sync>>,
    pub _lease: Lease,
}

impl fmt::Debug for PortCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortCore").field("id", &self.id).field("pools", &self.pools).finish()
    }
}

impl Drop for PortCore {
    fn drop(&mut self) {
        // SAFETY: no queue handle is left, so nobody polls.
        unsafe {
            if *self.started.get_mut().unwrap_or_else(PoisonError::into_inner) {
                sys::rte_eth_dev_stop(self.id.number());
            }
            sys::rte_eth_dev_close(self.id.number());
        }
    }
}

/// The right to set a port up, which one [`Port`] at a time has.
pub(super) struct Lease(PortId);

static LEASED: Mutex<[bool; sys::PQS_MAX_PORTS as usize]> =
    Mutex::new([false; sys::PQS_MAX_PORTS as usize]);

impl Lease {
    pub fn take(id: PortId) -> Result<Self, PortError> {
        let mut leased = LEASED.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = &mut leased[usize::from(id.number())];
        if *mine {
            return Err(PortError::InUse(id));
        }
        *mine = true;
        Ok(Self(id))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        LEASED.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(self.0.number())] = false;
    }
}
