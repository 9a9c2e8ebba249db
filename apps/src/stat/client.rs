//! Finds the telemetry socket of a running program, and asks there.
//!
//! DPDK makes one for each process, below a directory that depends on the user, in one that is named by
//! the file prefix. Others than prequeue's programs have them too: each is asked who it is.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};
use serde_json::Value;

/// How long an answer is waited for: the program itself waits two seconds for its lcores at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the names of telemetry sockets begin with; those of further processes with the same prefix end
/// with their number.
const SOCKET: &str = "dpdk_telemetry.v2";

/// Bytes of the longest answer, if the greeting does not say (DPDK 22.11).
const LONGEST: usize = 16 * 1024;

/// Which program to ask, if several run.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Of this process.
    pub pid: Option<u64>,
    /// With this `--file-prefix`.
    pub file_prefix: Option<String>,
    /// At this very socket.
    pub socket: Option<PathBuf>,
    /// The stack of this name or number in it, if it has several; else the oldest.
    pub stack: Option<String>,
}

/// Why nobody can be asked.
#[derive(Debug)]
pub enum NobodyToAsk {
    /// No DPDK program runs, or none with telemetry.
    None(Vec<PathBuf>),
    /// There are sockets, but they may not be used.
    Forbidden(PathBuf),
    /// DPDK programs run, but none is prequeue's, or the one asked for is none.
    NotOurs(Vec<String>),
    /// Several do.
    Several(Vec<String>),
    /// The connection broke.
    Broken(PathBuf, io::Error),
    /// The answer is none.
    Nonsense(String),
    /// The program has no answer to this.
    NoAnswer(String),
    /// The program has no such stack.
    NoSuchStack(String, Vec<String>),
}

impl fmt::Display for NobodyToAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| names.join("; ");
        match self {
            Self::None(dirs) => {
                let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                write!(
                    f,
                    "nothing to look at: there is no {SOCKET} below {}. Is the program running, without \
                     --no-telemetry?",
                    dirs.join(", ")
                )
            }
            Self::Forbidden(path) => {
                write!(
                    f,
                    "not allowed to use {}: run this as the user of that program",
                    path.display()
                )
            }
            Self::NotOurs(found) => write!(
                f,
                "no program with a prequeue stack is running there; there is {}",
                list(found)
            ),
            Self::Several(found) => {
                write!(
                    f,
                    "several are running: choose one with --pid or --file-prefix: {}",
                    list(found)
                )
            }
            Self::Broken(path, error) => {
                write!(f, "{} does not answer: {error}", path.display())
            }
            Self::Nonsense(text) => write!(f, "the answer makes no sense: {text}"),
            Self::NoAnswer(command) => write!(
                f,
                "the program has no answer to {command}: is it of another version, or its lcore gone?"
            ),
            Self::NoSuchStack(wanted, there_are) => {
                write!(f, "the program has no stack {wanted}: there is {}", list(there_are))
            }
        }
    }
}

impl std::error::Error for NobodyToAsk {}

/// A program that can be asked.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    path: PathBuf,
    longest: usize,
    /// The stack to ask, if not the oldest.
    stack: Option<String>,
    /// The process.
    pub pid: u64,
    /// What it says of itself, and of the stack that is asked.
    pub info: Value,
}

/// A stack of a program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stack {
    /// Its place among those there are, oldest first.
    pub number: usize,
    /// Its name: its device's.
    pub name: String,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number, self.name)
    }
}

/// Where DPDK keeps what belongs to a process, as it decides itself.
pub fn runtime_dirs() -> Vec<PathBuf> {
    let dir = |name| std::env::var_os(name).map(|dir| Path::new(&dir).join("dpdk"));
    let mut dirs = vec![PathBuf::from("/var/run/dpdk")];
    dirs.extend(dir("RUNTIME_DIRECTORY"));
    dirs.extend(dir("XDG_RUNTIME_DIR"));
    dirs.push(PathBuf::from("/tmp/dpdk"));
    dirs.dedup();
    dirs
}

impl Client {
    /// The one program that can be asked, among those whose sockets are below `dirs`.
    ///
    /// # Errors
    /// If there is none, or no telling which.
    pub fn find(dirs: &[PathBuf], choice: &Choice) -> Result<Self, NobodyToAsk> {
        let mut forbidden = None;
        let mut others = Vec::new();
        let mut ours = Vec::new();
        let paths = match &choice.socket {
            Some(path) => vec![path.clone()],
            None => sockets(dirs, choice.file_prefix.as_deref(), &mut forbidden),
        };
        for path in paths {
            match Self::connect(&path) {
                Ok(client) if choice.pid.is_some_and(|pid| pid != client.pid) => {
                    others.push(client.describe());
                }
                Ok(client) if client.info.is_null() => others.push(client.describe()),
                Ok(client) => ours.push(client),
                // Left behind by a process that was killed.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    forbidden = Some(path);
                }
                Err(error) => return Err(NobodyToAsk::Broken(path, error)),
            }
        }
        match (ours.pop(), forbidden) {
            (Some(one), _) if ours.is_empty() => match &choice.stack {
                None => Ok(one),
                Some(stack) => one.of_stack(stack),
            },
            (Some(one), _) => {
                ours.push(one);
                Err(NobodyToAsk::Several(ours.iter().map(Self::describe).collect()))
            }
            (None, Some(path)) => Err(NobodyToAsk::Forbidden(path)),
            (None, None) if !others.is_empty() => Err(NobodyToAsk::NotOurs(others)),
            (None, None) => Err(NobodyToAsk::None(dirs.to_vec())),
        }
    }

    /// The same program, of which this stack is asked from now on.
    fn of_stack(mut self, stack: &str) -> Result<Self, NobodyToAsk> {
        self.stack = Some(stack.to_owned());
        match self.ask("info") {
            Ok(info) => {
                self.info = info;
                Ok(self)
            }
            Err(NobodyToAsk::NoAnswer(_)) => {
                self.stack = None;
                let names = self.stacks().iter().map(Stack::to_string).collect();
                Err(NobodyToAsk::NoSuchStack(stack.to_owned(), names))
            }
            Err(error) => Err(error),
        }
    }

    /// The stacks that the program has, oldest first; none if it is too old to tell.
    pub fn stacks(&self) -> Vec<Stack> {
        let Ok(list) = self.ask("stacks") else { return Vec::new() };
        (0..)
            .map_while(|number: usize| {
                let name = list.get(number.to_string())?.get("name")?.as_str()?.to_owned();
                Some(Stack { number, name })
            })
            .collect()
    }

    /// Asks a command, as `counters` or `sockets,16,1`.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn ask(&self, command: &str) -> Result<Value, NobodyToAsk> {
        let stack = self.stack.iter().map(|stack| format!("stack={stack}"));
        let words: Vec<_> = command.split(',').map(str::to_owned).chain(stack).collect();
        let command = format!("/prequeue/{}", words.join(","));
        let broken = |error: io::Error| NobodyToAsk::Broken(self.path.clone(), error);
        let reply = self.exchange(&command).map_err(broken)?;
        match inner(&reply) {
            Some(Value::Null) => Err(NobodyToAsk::NoAnswer(command)),
            Some(value) => Ok(value),
            None => Err(NobodyToAsk::Nonsense(reply)),
        }
    }

    /// All connections, row by row; and how many more there were than the program lists.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn sockets(&self) -> Result<(Vec<Value>, u64), NobodyToAsk> {
        let mut rows: Vec<Value> = Vec::new();
        let mut page = self.ask("sockets")?;
        loop {
            let number = |name: &str| page.get(name).and_then(Value::as_u64);
            let (Some(list), Some(total)) = (number("list"), number("total")) else {
                return Err(NobodyToAsk::Nonsense(page.to_string()));
            };
            let omitted = number("omitted").unwrap_or(0);
            let before = rows.len();
            rows.extend((before..).map_while(|at| page.get(at.to_string()).cloned()));
            if rows.len() as u64 >= total || rows.len() == before {
                return Ok((rows, omitted));
            }
            page = self.ask(&format!("sockets,{},{list}", rows.len()))?;
        }
    }

    fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let path = path.to_owned();
        let (longest, stack, info) = (LONGEST, None, Value::Null);
        let mut client = Self { socket, path, longest, stack, pid: 0, info };
        let greeting: Value = client.receive()?.parse().unwrap_or_default();
        let number = |name: &str| greeting.get(name).and_then(Value::as_u64);
        client.pid = number("pid").unwrap_or(0);
        if let Some(longest) = number("max_output_len") {
            client.longest = usize::try_from(longest).unwrap_or(LONGEST).clamp(1024, 1 << 24);
        }
        let reply = client.exchange("/prequeue/info")?;
        client.info = inner(&reply).unwrap_or_default();
        Ok(client)
    }

    fn exchange(&self, command: &str) -> io::Result<String> {
        send(&self.socket, command.as_bytes(), SendFlags::NOSIGNAL)?;
        self.receive()
    }

    fn receive(&self) -> io::Result<String> {
        let mut bytes = vec![0; self.longest];
        let (n, _) = recv(&self.socket, bytes.as_mut_slice(), RecvFlags::empty())?;
        if n == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the program has closed it"));
        }
        bytes.truncate(n);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The program in a few words.
    fn describe(&self) -> String {
        let prefix = self.path.parent().and_then(Path::file_name).unwrap_or_default();
        let text = |name: &str| self.info.get(name).and_then(Value::as_str).unwrap_or_default();
        let what = match text("address0") {
            "" => "no prequeue".to_owned(),
            address => format!("{address} on {}", text("device")),
        };
        format!("pid {} (prefix {}): {what}", self.pid, prefix.to_string_lossy())
    }
}

/// What stands behind the one name of a reply.
fn inner(reply: &str) -> Option<Value> {
    match reply.parse().ok()? {
        Value::Object(map) => map.into_iter().next().map(|(_, value)| value),
        _ => None,
    }
}

/// All sockets there are, in the order of their names.
fn sockets(
    dirs: &[PathBuf],
    prefix: Option<&str>,
    forbidden: &mut Option<PathBuf>,
) -> Vec<PathBuf> {
    let mut list = |dir: &Path| -> Vec<PathBuf> {
        match fs::read_dir(dir) {
            Ok(entries) => {
                let mut paths: Vec<_> =
                    entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
                paths.sort();
                paths
            }
            Err(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    *forbidden = Some(dir.to_owned());
                }
                Vec::new()
            }
        }
    };
    let named = |path: &PathBuf, name: &str| path.file_name().is_some_and(|n| *n == *name);
    let mut found = Vec::new();
    for dir in dirs {
        for of_prefix in list(dir) {
            if of_prefix.is_dir() && prefix.is_none_or(|prefix| named(&of_prefix, prefix)) {
                found.extend(list(&of_prefix).into_iter().filter(|path| {
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SOCKET))
                }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
