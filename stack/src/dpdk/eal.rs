//! DPDK's environment abstraction layer: started once per process, or adopted from a host that has.
//!
//! Started on a thread that is thrown away, for starting pins the calling thread and everything it
//! spawns. Whatever can be known to go wrong is looked at *before*, because a start that fails
//! cannot be repeated in the same process.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use dpdk_sys as sys;

use super::port_id::PortId;

/// Arguments for tests: no hugepages, no files, no devices but virtual ones, one lcore.
pub const TEST_ARGS: [&str; 9] = [
    "--no-huge",
    "-m",
    "64",
    "--no-shconf",
    "--no-pci",
    "--no-telemetry",
    "-l",
    "0",
    "--log-level=error",
];

/// A user's arguments with what a library in somebody's process should not do switched off: no
/// telemetry thread, no files left behind, no clash with other DPDK processes.
///
/// Adds `--no-telemetry`, and `--in-memory`, or `--no-shconf` where hugepages are not wanted (the
/// EAL refuses `--in-memory` with `--no-huge`). Leaves what the user decided.
///
/// ```
/// # #[cfg(feature = "dpdk")] {
/// let args = prequeue::dpdk::run_args(["-l", "0", "--vdev=net_tap0"]);
/// assert_eq!(args, ["-l", "0", "--vdev=net_tap0", "--no-telemetry", "--in-memory"]);
/// # }
/// ```
pub fn run_args<A: Into<String>>(user: impl IntoIterator<Item = A>) -> Vec<String> {
    let mut args: Vec<String> = user.into_iter().map(Into::into).collect();
    let given = |names: &[&str]| {
        args.iter().any(|arg| names.contains(&arg.split('=').next().unwrap_or_default()))
    };
    let telemetry = given(&["--telemetry", "--no-telemetry"]);
    let files = given(&["--in-memory", "--no-shconf", "--file-prefix", "--proc-type"]);
    let in_memory = if given(&["--no-huge"]) { "--no-shconf" } else { "--in-memory" };
    if !telemetry {
        args.push("--no-telemetry".to_owned());
    }
    if !files {
        args.push(in_memory.to_owned());
    }
    args
}

/// The running EAL. There is one per process, and it runs until the process ends.
///
/// Any thread may use it. Starting and adopting fail with [`EalError`], and starting fails for good: the
/// EAL cannot be started a second time in a process.
///
/// ```no_run
/// use prequeue::dpdk::{Eal, EalError, run_args};
///
/// let eal = Eal::init(run_args(["-l", "1,2", "-a", "0000:3b:00.0"]))?;
/// println!("{}", eal.version());
/// for lcore in eal.lcores() {
///     println!("{lcore}");
/// }
/// for port in eal.require_ports()? {
///     println!("{port}");
/// }
/// # Ok::<(), EalError>(())
/// ```
#[derive(Debug)]
pub struct Eal {
    lcores: Vec<Lcore>,
    missing_vdevs: Vec<String>,
}

/// An lcore of the `-l` option: a CPU that the user gave to the poll loops.
///
/// See [`Eal`] for an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lcore {
    /// The EAL's number for it.
    pub id: u32,
    /// The CPU to pin its poll thread to.
    pub cpu: u32,
    /// NUMA node of that CPU.
    pub numa_node: u32,
}

/// Why there is no EAL, or no device in it.
///
/// Each says in a sentence what is wrong and what to do, for people to read.
///
/// ```no_run
/// use prequeue::dpdk::{Eal, EalError};
///
/// match Eal::init(["-l", "0"]) {
///     Err(EalError::NoHugepages) => drop(Eal::init(["-l", "0", "--no-huge", "-m", "256"])?),
///     other => drop(other?),
/// }
/// # Ok::<(), EalError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EalError {
    /// An argument cannot be a C string.
    #[error("the EAL argument {0:?} has a NUL character in it")]
    NulInArgument(String),
    /// No hugepage is free, and the arguments do not say to do without.
    #[error(
        "no hugepages are free: reserve some (echo 256 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages) or run without, slower, with the EAL arguments --no-huge -m 256"
    )]
    NoHugepages,
    /// A net_tap device was asked for and the kernel has no tun driver.
    #[error(
        "there is no /dev/net/tun, which net_tap needs: load the tun module (modprobe tun); in a container, pass the device in"
    )]
    NoTun,
    /// A net_tap device was asked for and this process may not make one.
    #[error(
        "no permission to make a tap device, which net_tap does: run as root, or give the program CAP_NET_ADMIN and access to /dev/net/tun"
    )]
    TunPermission,
    /// The EAL refused; it has printed why.
    #[error(
        "the EAL refused to start ({reason}); its own message above says more. Arguments: {args}"
    )]
    Refused {
        /// DPDK's word for it.
        reason: String,
        /// The arguments.
        args: String,
    },
    /// It was started before, with other arguments.
    #[error("the EAL was started with other arguments ({0}), and starts once per process")]
    OtherArguments(String),
    /// Somebody else has started it.
    #[error("another part of this process has started the EAL: use Eal::adopt()")]
    AlreadyUp,
    /// There is nothing to adopt.
    #[error("nobody has started the EAL in this process: use Eal::init()")]
    NotUp,
    /// A virtual device of the arguments did not come up.
    #[error(
        "the device {0} failed to come up; the EAL's message above says why. Look at its name, its options, and whether another process has it"
    )]
    VdevFailed(String),
    /// There is no port at all.
    #[error(
        "the EAL found no port: name a device with -a <PCI address> (bound to vfio-pci), or a virtual one, as --vdev=net_tap0,iface=tap0"
    )]
    NoPorts,
    /// The starting thread could not be made.
    #[error("cannot spawn the thread that starts the EAL: {0}")]
    Thread(String),
}

impl Eal {
    /// Starts the EAL, or returns the running one if it was started with the same arguments. The
    /// arguments are those of the EAL alone, without a program name.
    ///
    /// The calling thread keeps its affinity. Virtual devices that fail to come up do not fail the
    /// start: see [`Self::require_ports`].
    pub fn init<A: Into<String>>(
        args: impl IntoIterator<Item = A>,
    ) -> Result<&'static Self, EalError> {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = EAL.get() {
            return match &started.args {
                Some(before) if *before == args => started.result.as_ref().map_err(Clone::clone),
                Some(before) => Err(EalError::OtherArguments(before.join(" "))),
                None => Err(EalError::AlreadyUp),
            };
        }
        // SAFETY: reads a count.
        if unsafe { sys::pqs_eal_is_up() } {
            return Err(EalError::AlreadyUp);
        }
        let argv = c_arguments(&args)?;
        check_host(&args)?;
        let result = start(argv, &args).map(|()| Self::look_around(&args));
        let started = EAL.get_or_init(|| Started { args: Some(args), result });
        started.result.as_ref().map_err(Clone::clone)
    }

    /// Takes over an EAL that the host program has started.
    pub fn adopt() -> Result<&'static Self, EalError> {
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: reads a count.
        if EAL.get().is_none() && !unsafe { sys::pqs_eal_is_up() } {
            return Err(EalError::NotUp);
        }
        let started =
            EAL.get_or_init(|| Started { args: None, result: Ok(Self::look_around(&[])) });
        started.result.as_ref().map_err(Clone::clone)
    }

    /// The lcores of `-l`, in the order given there.
    pub fn lcores(&self) -> &[Lcore] {
        &self.lcores
    }

    /// The ports there are now, lowest number first.
    pub fn ports(&self) -> Vec<PortId> {
        let mut ports = Vec::new();
        let mut from = 0;
        loop {
            // SAFETY: the EAL is up.
            let next = unsafe { sys::rte_eth_find_next_owned_by(from, NO_OWNER) };
            // Past the last one it says RTE_MAX_ETHPORTS.
            let Ok(id) = u16::try_from(next) else { return ports };
            if u32::from(id) >= sys::PQS_MAX_PORTS {
                return ports;
            }
            ports.push(PortId::new(id));
            from = id + 1;
        }
    }

    /// The ports, or why there are none or too few: a virtual device of the arguments that did not
    /// come up, or nothing found.
    pub fn require_ports(&self) -> Result<Vec<PortId>, EalError> {
        if let Some(name) = self.missing_vdevs.first() {
            return Err(EalError::VdevFailed(name.clone()));
        }
        let ports = self.ports();
        if ports.is_empty() { Err(EalError::NoPorts) } else { Ok(ports) }
    }

    /// DPDK's version, as it says it.
    pub fn version(&self) -> String {
        // SAFETY: a constant string.
        unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
    }

    /// What came up. On a fresh EAL, before other threads are registered.
    fn look_around(args: &[String]) -> Self {
        // SAFETY: the EAL is up; these read its configuration.
        let mut lcores: Vec<(c_int, Lcore)> = (0..sys::PQS_MAX_LCORE)
            .filter(|id| unsafe { sys::rte_lcore_is_enabled(*id) } != 0)
            .filter_map(|id| unsafe {
                let cpu = u32::try_from(sys::pqs_lcore_cpu(id)).ok()?;
                let numa_node = sys::rte_lcore_to_socket_id(id);
                Some((sys::rte_lcore_index(id as c_int), Lcore { id, cpu, numa_node }))
            })
            .collect();
        lcores.sort_by_key(|(index, _)| *index);
        let missing_vdevs = network_vdevs(args).filter(|name| !port_exists(name)).collect();
        Self { lcores: lcores.into_iter().map(|(_, lcore)| lcore).collect(), missing_vdevs }
    }
}

impl fmt::Display for Lcore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lcore {} on CPU {}", self.id, self.cpu)
    }
}

/// DPDK's word for the error of the call that has just failed on this thread.
pub(super) fn errno_text() -> String {
    // SAFETY: reads a thread-local.
    error_text(unsafe { sys::pqs_errno() })
}

/// DPDK's word for an error number, of either sign.
pub(super) fn error_text(number: c_int) -> String {
    // SAFETY: the string is static or the thread's own, and is copied before another call.
    unsafe { CStr::from_ptr(sys::rte_strerror(number.abs())) }.to_string_lossy().into_owned()
}

/// How the EAL of this process came to be.
struct Started {
    /// `None` if it was adopted.
    args: Option<Vec<String>>,
    result: Result<Eal, EalError>,
}

static EAL: OnceLock<Started> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// RTE_ETH_DEV_NO_OWNER: ports that no other part of the process has claimed.
const NO_OWNER: u64 = 0;

/// CAP_NET_ADMIN's bit in /proc/self/status.
const CAP_NET_ADMIN: u64 = 1 << 12;

/// The argument vector. It must outlive the EAL, which also permutes it: both are leaked, once.
fn c_arguments(args: &[String]) -> Result<&'static mut [*mut c_char], EalError> {
    let mut argv = Vec::with_capacity(args.len() + 2);
    for arg in ["prequeue"].into_iter().chain(args.iter().map(String::as_str)) {
        let arg = CString::new(arg).map_err(|_| EalError::NulInArgument(arg.to_owned()))?;
        argv.push(arg.into_raw());
    }
    argv.push(std::ptr::null_mut());
    Ok(argv.leak())
}

/// Looks for what would make the EAL fail or come up without a device, while there is still a way
/// back.
fn check_host(args: &[String]) -> Result<(), EalError> {
    if !args.iter().any(|arg| arg == "--no-huge") && !hugepages_free() {
        return Err(EalError::NoHugepages);
    }
    if args.iter().any(|arg| arg.contains("net_tap")) {
        check_tun()?;
    }
    Ok(())
}

/// Whether the kernel has, or would make, a hugepage of any size. Where it does not say, the EAL
/// shall.
fn hugepages_free() -> bool {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else { return true };
    sizes.flatten().any(|size| {
        ["free_hugepages", "nr_overcommit_hugepages"].iter().any(|file| {
            let text = fs::read_to_string(size.path().join(file)).unwrap_or_default();
            text.trim().parse::<u64>().is_ok_and(|n| n > 0)
        })
    })
}

fn check_tun() -> Result<(), EalError> {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge_tun(opened.err().map(|error| error.kind()), &status)
}

/// What opening /dev/net/tun and the process's own status say of making a tap device.
fn judge_tun(open_error: Option<io::ErrorKind>, status: &str) -> Result<(), EalError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    match (open_error, effective) {
        (Some(io::ErrorKind::PermissionDenied), _) => Err(EalError::TunPermission),
        (Some(_), _) => Err(EalError::NoTun),
        (None, Some(mask)) if mask & CAP_NET_ADMIN == 0 => Err(EalError::TunPermission),
        (None, _) => Ok(()),
    }
}

fn start(argv: &'static mut [*mut c_char], args: &[String]) -> Result<(), EalError> {
    struct Argv(&'static mut [*mut c_char]);
    // SAFETY: the strings are leaked and nobody else's.
    unsafe impl Send for Argv {}

    let argv = Argv(argv);
    let init = move || {
        let Argv(argv) = { argv };
        // The vector ends with a null pointer that is not counted.
        let argc = argv.len() as c_int - 1;
        // SAFETY: argv is as main() gets it, and lives for ever.
        let ret = unsafe { sys::rte_eal_init(argc, argv.as_mut_ptr()) };
        if ret >= 0 {
            return Ok(());
        }
        let reason = errno_text();
        // What it has said on stdio, its usage for one, comes before what the caller says of it.
        // SAFETY: all streams of C's stdio, which are locked while they are flushed.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        Err(reason)
    };
    thread::Builder::new()
        .name("eal-init".to_owned())
        .spawn(init)
        .map_err(|error| EalError::Thread(error.to_string()))?
        .join()
        .expect("starting the EAL does not panic")
        .map_err(|reason| EalError::Refused { reason, args: args.join(" ") })
}

/// Names of the network devices among `--vdev` arguments, in both spellings.
fn network_vdevs(args: &[String]) -> impl Iterator<Item = String> + '_ {
    args.iter().enumerate().filter_map(|(i, arg)| {
        let device = match arg.strip_prefix("--vdev=") {
            Some(device) => device,
            None if i > 0 && args[i - 1] == "--vdev" => arg,
            None => return None,
        };
        let name = device.split(',').next()?;
        name.starts_with("net_").then(|| name.to_owned())
    })
}

fn port_exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    let mut id = 0;
    // SAFETY: both pointers are good for the call.
    unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_arguments_leave_what_the_user_decided() {
        assert_eq!(run_args(["-l", "0"]), ["-l", "0", "--no-telemetry", "--in-memory"]);
        assert_eq!(run_args(["--no-huge"]), ["--no-huge", "--no-telemetry", "--no-shconf"]);
        let decided = ["--file-prefix=x", "--telemetry"];
        assert_eq!(run_args(decided), decided);
        let decided = ["--file-prefix", "x", "--no-telemetry"];
        assert_eq!(run_args(decided), decided);
    }

    #[test]
    fn a_tap_needs_the_device_and_the_capability() {
        use io::ErrorKind;
        let root = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        let user = "CapEff:\t0000000000000000\n";
        assert_eq!(judge_tun(None, root), Ok(()));
        assert_eq!(judge_tun(None, ""), Ok(()), "the EAL shall find out");
        assert_eq!(judge_tun(None, user), Err(EalError::TunPermission));
        let denied = judge_tun(Some(ErrorKind::PermissionDenied), user);
        assert_eq!(denied, Err(EalError::TunPermission));
        assert_eq!(judge_tun(Some(ErrorKind::NotFound), root), Err(EalError::NoTun));
    }

    #[test]
    fn vdevs_are_found_in_both_spellings() {
        let args = ["--vdev=net_tap0,iface=t", "--vdev", "net_null0", "--vdev=crypto_null", "-l"];
        let args = args.map(str::to_owned);
        assert!(network_vdevs(&args).eq(["net_tap0", "net_null0"]));
    }
}
