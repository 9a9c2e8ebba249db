//! The atomics, cells and sleeping words of this room: the real ones, or loom's twins.
//!
//! Everything in `socket/` that two threads share is built from what is named here, so that the
//! model checker sees each access. Nothing here knows a socket.

use std::io;
use std::time::Duration;

#[cfg(not(loom))]
pub(crate) use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Mutex, MutexGuard},
};

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Arc, Mutex, MutexGuard},
};

/// The fence behind a read-modify-write operation of this thread on whatever word, which on x86-64 is a
/// full one itself (Intel SDM volume 3, "Locked Instructions Have a Total Order" and what is said of loads
/// and stores around them): there the compiler alone has to be told.
#[inline(always)]
pub(crate) fn fence_behind_exchange() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    fence(Ordering::SeqCst);
}

/// A 32-bit word that threads can sleep on until somebody wakes them.
///
/// The real one is a private futex. loom's twin takes a lock and a condition variable around the
/// same check; reading by a read-modify-write stands for the kernel's look under its bucket lock.
#[derive(Debug)]
pub(crate) struct FutexWord {
    value: AtomicU32,
    #[cfg(loom)]
    bucket: loom::sync::Mutex<()>,
    #[cfg(loom)]
    sleepers: loom::sync::Condvar,
}

/// Why a sleep has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Woken {
    /// A signal was handled by this thread.
    BySignal,
    /// Somebody has woken the thread, or the word had changed, or the time is over.
    Otherwise,
}

impl FutexWord {
    pub(crate) fn new(value: u32) -> Self {
        Self {
            value: AtomicU32::new(value),
            #[cfg(loom)]
            bucket: loom::sync::Mutex::new(()),
            #[cfg(loom)]
            sleepers: loom::sync::Condvar::new(),
        }
    }

    /// The word, for the atomic operations of its protocol.
    pub(crate) fn value(&self) -> &AtomicU32 {
        &self.value
    }

    /// Sleeps as long as the word is `seen`, at most for `span`; may return early, and tells whether
    /// that is because of a signal.
    #[cfg(not(loom))]
    pub(crate) fn wait(&self, seen: u32, span: Option<Duration>) -> Woken {
        use rustix::thread::futex;
        let span = span.map(|d| futex::Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        // A changed word and the end of the span mean the same: look again. Without a span the kernel
        // goes on waiting after handlers that were installed with SA_RESTART.
        match futex::wait(&self.value, futex::Flags::PRIVATE, seen, span.as_ref()) {
            Err(rustix::io::Errno::INTR) => Woken::BySignal,
            _ => Woken::Otherwise,
        }
    }

    #[cfg(loom)]
    pub(crate) fn wait(&self, seen: u32, span: Option<Duration>) -> Woken {
        assert!(span.is_none(), "loom has no time");
        let bucket = self.bucket.lock().unwrap();
        if self.value.fetch_add(0, Ordering::AcqRel) == seen {
            drop(self.sleepers.wait(bucket).unwrap());
        }
        Woken::Otherwise
    }

    /// Wakes at most `n` sleepers.
    #[cfg(not(loom))]
    pub(crate) fn wake(&self, n: u32) {
        use rustix::thread::futex;
        // Fails only for a word that is no memory of ours.
        let _ = futex::wake(&self.value, futex::Flags::PRIVATE, n);
    }

    #[cfg(loom)]
    pub(crate) fn wake(&self, n: u32) {
        drop(self.bucket.lock().unwrap());
        if n == 1 { self.sleepers.notify_one() } else { self.sleepers.notify_all() }
    }

    /// Wakes every sleeper.
    pub(crate) fn wake_all(&self) {
        // The kernel takes the number as a signed one.
        self.wake(i32::MAX as u32);
    }
}

/// A bell that stays rung until somebody clears it, and that threads and foreign event loops can
/// wait for: an eventfd. loom's twin is a flag with a condition variable.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct EventFd(std::os::fd::OwnedFd);

#[cfg(not(loom))]
impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the descriptor readable. One system call.
    pub(crate) fn ring(&self) {
        // Fails only if it has been rung 2^64 - 2 times and is readable anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable. One system call.
    pub(crate) fn clear(&self) {
        // Fails if it was not rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// Sleeps until it is rung, at most for `span`; a signal ends it with `Interrupted`.
    pub(crate) fn wait(&self, span: Option<Duration>) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let span = span.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], span.as_ref())?;
        Ok(())
    }
}

#[cfg(not(loom))]
impl std::os::fd::AsFd for EventFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct EventFd {
    rung: Mutex<bool>,
    sleepers: loom::sync::Condvar,
}

#[cfg(loom)]
impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { rung: Mutex::new(false), sleepers: loom::sync::Condvar::new() })
    }

    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.sleepers.notify_all();
    }

    pub(crate) fn clear(&self) {
        *self.rung.lock().unwrap() = false;
    }

    pub(crate) fn wait(&self, span: Option<Duration>) -> io::Result<()> {
        assert!(span.is_none(), "loom has no time");
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.sleepers.wait(rung).unwrap();
        }
        Ok(())
    }
}

/// Keeps what it holds on cache lines of its own. Two lines, because the adjacent-line prefetcher
/// of x86 fetches pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct OwnLines<T>(pub(crate) T);

/// The same, but its neighbour in the second line of the pair is what follows it: something that is
/// hardly ever written.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct FirstLine<T>(pub(crate) T);

impl<T> std::ops::Deref for FirstLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::Deref for OwnLines<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Whether the model under test runs with this step of a protocol broken. Always false outside of
/// loom; there each mutant has a test that shows the model noticing it.
#[cfg(not(loom))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(loom)]
macro_rules! mutant {
    ($name:ident) => {
        $crate::socket::sync::mutants::chosen()
            == Some($crate::socket::sync::mutants::Mutant::$name)
    };
}

pub(crate) use mutant;

/// The steps that a model can be run without.
#[cfg(loom)]
pub(crate) mod mutants {
    use std::sync::OnceLock;

    macro_rules! mutants {
        ($(#[doc = $doc:literal] $name:ident,)*) => {
            #[derive(Clone, Copy, Debug, Eq, PartialEq)]
            pub(crate) enum Mutant {
                $(#[doc = $doc] $name,)*
            }

            impl Mutant {
                const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    mutants! {
        /// A thread releases to FREE although PENDING is set.
        ReleaseIgnoresPending,
        /// A release to FREE forgets WAITERS.
        ReleaseWakesNobody,
        /// A thread that has slept claims without WAITERS.
        SleeperForgetsOthers,
        /// The lcore sets PENDING but does not claim a word that became free.
        DeferDoesNotClaim,
        /// The lcore claims with a relaxed operation.
        ClaimRelaxed,
        /// The reference is counted off with a relaxed operation.
        CountOffRelaxed,
        /// The doorbell's bit is cleared after the socket was looked at.
        BellClearedLate,
        /// A parking reader does not fence between publishing and looking.
        ParkWithoutFence,
        /// The producer does not fence between publishing and looking.
        WakeWithoutFence,
        /// Only one sleeper is woken.
        WakeOne,
        /// What owners publish is read before what anybody may.
        OwnedStatusFirst,
        /// The reader does not fence before it looks at `notify_at`.
        NoticeWithoutFence,
        /// The lcore does not look again after publishing `notify_at`.
        NoticeWithoutSecondLook,
        /// The status is looked at only after the ring was found empty.
        StatusBeforeRingNotRead,
        /// Data goes into the ring although older data waits in the receive queue.
        SpillNotSticky,
        /// The lcore puts what is in the ring in front of what was taken.
        RingBeforeTaken,
        /// Uninstalling puts back what is in the ring behind the receive queue.
        PutBackBehind,
        /// The lcore copies to a reader's memory without the slot's word.
        DirectWithoutSlot,
        /// The lcore copies to a reader's memory without the reader token.
        DirectWithoutToken,
        /// The lcore copies though older data waits to be read.
        DirectBehindQueued,
        /// A reader takes its memory back without the slot's word.
        WithdrawWithoutSlot,
        /// A reader returns and leaves its memory to the lcore.
        LoanLeftBehind,
        /// An exclusive reader does not take note of how far its memory was filled.
        ReaderMissesFilled,
        /// A reader that spins does not tell what it has read when it finds nothing either.
        SpinnerNeverTells,
        /// A reader says how far it is before it gives back what it has read.
        ProgressBeforeBuffers,
        /// What is in the ring is forgotten when low-latency mode begins.
        SwitchForgetsRing,
        /// A room in the accept queue is taken by a load and a store.
        ReserveWithoutExchange,
        /// An acceptor does not fence between announcing itself and looking.
        AcceptWithoutFence,
        /// The reap list is not looked at again after the home was found open.
        ReapWithoutSecondLook,
        /// A socket is not looked at after it was registered with a poller.
        RegisterWithoutLook,
        /// Registering does not fence before it looks at the socket.
        RegisterWithoutFence,
        /// A poller does not fence between setting its alarm and looking at its list.
        DozeWithoutFence,
        /// Whoever puts a socket on a poller's list does not fence before looking at the alarm.
        AlarmWithoutFence,
        /// A thread that has polled leaves the alarm off though another still sleeps.
        PollForgetsOthers,
    }

    /// Names the step to leave out, in the environment of a child that is meant to fail.
    const VARIABLE: &str = "PREQUEUE_LOOM_MUTANT";

    /// The step that this process runs without.
    pub(crate) fn chosen() -> Option<Mutant> {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        let name = CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok()).as_ref()?;
        Mutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == *name)
    }

    /// Runs the model test `name` with one step broken and asserts that it fails.
    ///
    /// In a process of its own: when loom reports a deadlock it panics, and the destructors that
    /// run then panic again, which aborts.
    #[cfg(test)]
    pub(crate) fn must_fail(mutant: Mutant, name: &str) {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--nocapture"])
            .env("RUST_BACKTRACE", "0")
            .env(VARIABLE, format!("{mutant:?}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "{name} names no test: {text}");
        assert!(!output.status.success(), "the model does not notice {mutant:?}");
    }
}
