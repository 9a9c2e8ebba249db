//! An ordinary thread as an EAL thread.
//!
//! Poll threads are ours, not the EAL's: names, panics and join handles stay Rust's. Registered,
//! they have an lcore id, and with it a cache in every mempool. Says nothing about pinning.

use std::marker::PhantomData;

use dpdk_sys as sys;

use super::eal::{Eal, errno_text};

/// The calling thread is known to the EAL as long as this lives.
///
/// It stays on its thread.
///
/// ```no_run
/// use prequeue::dpdk::{Eal, EalThread, Mempool};
///
/// fn poll(eal: &'static Eal, pool: Mempool) -> Result<(), Box<dyn std::error::Error>> {
///     let _thread = EalThread::register(eal)?;
///     let _owner = pool.own()?;
///     // Here this thread polls, allocates and frees, with a cache of its own.
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct EalThread {
    /// Registered by us, so unregistered by us.
    ours: bool,
    _this_thread: PhantomData<*const ()>,
}

/// The EAL refused a thread.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the EAL takes no more threads ({reason}): it knows at most {} lcores, and none of ours in a process that takes part in DPDK's multi-process mode",
    sys::PQS_MAX_LCORE
)]
///
/// See [`EalThread`] for an example.
pub struct RegisterError {
    reason: String,
}

impl EalThread {
    /// Registers the calling thread. On a thread that is registered already this does nothing.
    pub fn register(_eal: &'static Eal) -> Result<Self, RegisterError> {
        let ours = lcore_id().is_none();
        // SAFETY: the EAL is up, and the thread is not registered.
        if ours && unsafe { sys::rte_thread_register() } != 0 {
            return Err(RegisterError { reason: errno_text() });
        }
        Ok(Self { ours, _this_thread: PhantomData })
    }

    /// The EAL's number for the thread.
    pub fn lcore_id(&self) -> u32 {
        lcore_id().expect("registered")
    }
}

impl Drop for EalThread {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: registered by `register`, on this thread.
            unsafe { sys::rte_thread_unregister() };
        }
    }
}

/// Lcore id of the calling thread, if it has one.
fn lcore_id() -> Option<u32> {
    // SAFETY: reads a thread-local.
    let id = unsafe { sys::pqs_lcore_id() };
    (id != u32::MAX).then_some(id)
}
