//! The command line: DPDK's EAL arguments left of `--`, the program's own to the right of it.
//!
//! Called once, by `main`, before anything is started. Only the form is judged here, and told what to
//! write instead; what the values are worth is the library's to say.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Args, Parser, error::ErrorKind};

use crate::settings::{List, Tuning};

/// The EAL arguments in words, for the end of `--help`.
pub const EAL_HELP: &str = "\
EAL arguments are DPDK's own; they say who polls what. The usual ones:
  -l 1                           CPU 1 polls; -l 2,3 polls two queues of the port with two CPUs
  -a 0000:01:00.0                the NIC at this PCI address, which must be bound to vfio-pci
  --vdev net_tap0,iface=pqtap0   instead of a NIC a tap, which the kernel knows as pqtap0
  --no-pci                       leave all NICs alone
  --no-huge -m 512               512 MiB of ordinary memory instead of hugepages; slower
  --help                         (left of --) print all there are";

/// A program's command line, taken apart.
pub struct CommandLine<A> {
    /// What goes to the EAL, without the program's name.
    pub eal: Vec<String>,
    /// What the program itself understands.
    pub own: A,
}

impl<A: Parser> CommandLine<A> {
    /// Reads the process's arguments. Ends the process with status 2 if they make no sense, and
    /// with status 0 after printing what `--help`, `--version` or `--list-settings` asked for.
    pub fn parse() -> Self {
        let args: Vec<OsString> = std::env::args_os().skip(1).collect();
        // Like `--help`: whatever else is on the line, or is not.
        if args.iter().any(|arg| arg == "--list-settings") {
            // Whoever reads only the beginning of it has seen enough.
            let _ = write!(io::stdout(), "{List}");
            std::process::exit(0);
        }
        Self::from_args(args).unwrap_or_else(|error| error.exit())
    }

    fn from_args(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut command = A::command();
        let fail = |command: &mut clap::Command, text: &str| {
            Err(command.error(ErrorKind::MissingRequiredArgument, text))
        };
        let Some(split) = args.iter().position(|arg| arg == "--") else {
            // Without `--` nothing can be meant for the EAL, but `--help` is meant for us.
            if args.iter().any(|arg| ["-h", "--help", "-V", "--version"].iter().any(|h| arg == h)) {
                return Self::from_args([OsString::from("--")].into_iter().chain(args).collect());
            }
            return fail(
                &mut command,
                "there is no `--`. EAL arguments stand left of it, the program's own right of it: \
                 -l 1 --vdev net_tap0,iface=pqtap0 -- --address 10.99.0.2/24 --listen 7000",
            );
        };
        let own_args = std::iter::once(OsString::from(command.get_name())).chain(
            // The program's own part may be empty; clap then says what is missing.
            args[split + 1..].iter().cloned(),
        );
        let own = A::from_arg_matches(&command.try_get_matches_from_mut(own_args)?)
            .map_err(|error| error.format(&mut command))?;
        let eal = args[..split]
            .iter()
            .map(|arg| arg.clone().into_string())
            .collect::<Result<Vec<_>, _>>();
        let Ok(eal) = eal else {
            return fail(&mut command, "an EAL argument is not UTF-8");
        };
        if eal.is_empty() {
            return fail(
                &mut command,
                "there are no EAL arguments left of `--`. Name at least the port: \
                 --vdev net_tap0,iface=pqtap0 for a tap, or -a 0000:01:00.0 for a NIC that is bound to \
                 vfio-pci; and, by -l, the CPUs that poll it",
            );
        }
        Ok(Self { eal, own })
    }
}

/// Where the stack lives on the network; the same for all programs. The library judges the values.
#[derive(Args, Clone, Debug)]
pub struct Network {
    /// An address to answer to and the length of its network's prefix, as 10.99.0.2/24 or fd00:99::2/64;
    /// may be given several times
    #[arg(long, value_name = "ADDRESS/PREFIX", required = true)]
    pub address: Vec<String>,
    /// The TCP port to listen on
    #[arg(long, value_name = "PORT", value_parser = tcp_port)]
    pub listen: u16,
    /// The DPDK port (not TCP port) to use, as in net_tap0 or 0; needed only if there are several
    #[arg(long, value_name = "NAME")]
    pub port: Option<String>,
    /// The router to peers outside that network; without one they get no answer. One for IPv4 and one
    /// for IPv6
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<String>,
    /// The Ethernet address to use, as in 02:00:00:00:00:01; by default the device's own
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,
    /// The VLAN that the addresses are in, 1 to 4094, if the switch gives the port tagged frames
    #[arg(long, value_name = "ID", value_parser = vlan_id)]
    pub vlan: Option<u16>,
    /// The longest IP packet in bytes, 576 or more; by default the device's own
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// Settings.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// A VLAN that there can be (IEEE 802.1Q: 0 is none, 4095 reserved).
fn vlan_id(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(id @ 1..=4094) => Ok(id),
        _ => Err("a VLAN is a number from 1 to 4094"),
    }
}

/// A port that can be listened on.
fn tcp_port(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err("a TCP port is a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser, Debug)]
    #[command(name = "pq-test")]
    struct Own {
        #[command(flatten)]
        network: Network,
    }

    fn parse(line: &str) -> Result<CommandLine<Own>, String> {
        let args = line.split_whitespace().map(OsString::from).collect();
        CommandLine::from_args(args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_double_dash_parts_eal_from_own_arguments() {
        let line = parse("-l 1 --vdev net_null0 -- --address 10.0.0.1/8 --listen 80 --mtu 1400");
        let line = line.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(line.eal, ["-l", "1", "--vdev", "net_null0"]);
        assert_eq!(line.own.network.address, ["10.0.0.1/8"]);
        assert_eq!(line.own.network.listen, 80);
        assert_eq!(line.own.network.mtu, Some(1400));
    }

    #[test]
    fn every_mistake_has_its_sentence() {
        let tail = "--address 10.0.0.1/8 --listen 80";
        for (line, sentence) in [
            ("", "there is no `--`"),
            ("--vdev net_null0 --address 10.0.0.1/8", "there is no `--`"),
            (&format!("-- {tail}"), "no EAL arguments"),
            ("--vdev x --", "--address <ADDRESS/PREFIX>"),
            ("--vdev x -- --address 10.0.0.1/8 --listen 65536", "from 1 to 65535"),
            (&format!("--vdev x -- {tail} --vlan 4095"), "from 1 to 4094"),
            (&format!("--vdev x -- {tail} --mtu big"), "--mtu <BYTES>"),
            (&format!("--vdev x -- {tail} --frobnicate"), "unexpected argument"),
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line:?} was accepted"));
            assert!(error.contains(sentence), "{line:?} gave {error}");
        }
    }

    #[test]
    fn addresses_and_gateways_may_be_repeated() {
        let line = parse(
            "--vdev x -- --address 10.0.0.1/8 --address fd00::1/64 --listen 80 \
             --gateway 10.0.0.9 --gateway fe80::1",
        );
        let network = line.unwrap_or_else(|error| panic!("{error}")).own.network;
        assert_eq!(network.address, ["10.0.0.1/8", "fd00::1/64"]);
        assert_eq!(network.gateway, ["10.0.0.9", "fe80::1"]);
    }

    #[test]
    fn help_needs_no_double_dash() {
        let help = parse("--help").err().expect("help ends the program");
        assert!(help.contains("--listen <PORT>"), "{help}");
    }
}
