//! The builder: what a stack is to be, and the start of its poll threads.
//!
//! Used by one application thread. What was asked for is checked, and the port set up, in
//! [`prepare`](super::prepare); nothing is looked at before `start`.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::dpdk::Clock;
use crate::lcore::fault::Faults;
use crate::lcore::poll::{Board, PollLoop};
use crate::lcore::{Role, engines};
use crate::sight::Sight;
use crate::socket::Waiting;
use crate::tcp::Settings;

use super::prepare::{Prepared, fragments, plan};
use super::{Stack, StartError};

/// How a stack is set up. Only the EAL arguments and the address are needed.
///
/// Nothing is looked at before [`StackBuilder::start`], which says what is wrong.
///
/// ```no_run
/// use prequeue::Stack;
/// use prequeue::tcp::Settings;
///
/// let stack = Stack::builder()
///     .eal_args(["-l", "0,1", "-a", "0000:3b:00.0"])
///     .address("192.0.2.10/24")
///     .gateway("192.0.2.1")
///     .settings(Settings { tcp_fin_timeout: std::time::Duration::from_secs(10), ..Settings::default() })
///     .start()?;
/// # Ok::<(), prequeue::StartError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs until start() is called"]
pub struct StackBuilder {
    pub(super) eal_args: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) gateways: Vec<String>,
    pub(super) mac: Option<String>,
    pub(super) mtu: Option<u16>,
    pub(super) vlan: Option<u16>,
    pub(super) port: Option<String>,
    pub(super) queues: Option<usize>,
    pub(super) mbufs: Option<u32>,
    pub(super) buffer_room: Option<u16>,
    pub(super) max_connections: u32,
    pub(super) settings: Settings,
    pub(super) rx_timestamps: bool,
    pub(super) waiting: Waiting,
    pub(crate) faults: Faults,
}

impl StackBuilder {
    pub(super) fn new() -> Self {
        Self {
            eal_args: Vec::new(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mac: None,
            mtu: None,
            vlan: None,
            port: None,
            queues: None,
            mbufs: None,
            buffer_room: None,
            max_connections: 1 << 20,
            settings: Settings::default(),
            rx_timestamps: false,
            waiting: Waiting::default(),
            faults: Faults::default(),
        }
    }

    /// The arguments for DPDK's environment layer, without a program name. `--no-telemetry` and
    /// `--in-memory` are added unless they say otherwise; with `--telemetry` the stack can be looked at
    /// from outside, by `pq-stat` or `dpdk-telemetry.py`.
    pub fn eal_args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.eal_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// An address of ours and the length of its link's prefix, as `10.99.0.2/24` or `fd00:99::2/64`. Each
    /// call adds one, up to [`MOST_ADDRESSES`](crate::lcore::MOST_ADDRESSES); with one of IPv6 there is a
    /// link-local one besides.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// The router for whoever is not on the link; one for each family. Without one they cannot be
    /// answered.
    pub fn gateway(mut self, gateway: impl Into<String>) -> Self {
        self.gateways.push(gateway.into());
        self
    }

    /// Our Ethernet address, as `02:00:00:00:00:01`; the device's own if not given.
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// Bytes of the longest datagram; the device's own if not given. See [`Self::buffer_room`].
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// The VLAN that the addresses are in, 1 to 4094, where the switch gives the port tagged frames (IEEE
    /// 802.1Q): what is sent is tagged, and frames of another VLAN, or of none, are dropped and counted.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// The port to use, by name (`net_tap0`, `0000:3b:00.0`) or number, if there are several.
    pub fn port(mut self, port: impl Into<String>) -> Self {
        self.port = Some(port.into());
        self
    }

    /// Queue pairs; as many as lcores if not given, which they have to be.
    pub fn queues(mut self, queues: usize) -> Self {
        self.queues = Some(queues);
        self
    }

    /// Packet buffers per lcore, some 3 KiB each with the spare ones for the case that they run out.
    /// 2ⁿ − 1 wastes no memory; some 1650 are the least, for the device keeps a thousand.
    pub fn mbufs(mut self, mbufs: u32) -> Self {
        self.mbufs = Some(mbufs);
        self
    }

    /// Bytes of a frame that a packet buffer takes, at least 256; 2048 if not given. A longer frame lies in
    /// several where the device can do that; where it cannot, buffers are as large as the MTU wants.
    pub fn buffer_room(mut self, bytes: u16) -> Self {
        self.buffer_room = Some(bytes);
        self
    }

    /// Connections that each lcore will hold; 2²⁰ if not given. Memory is taken as they come.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// The settings known as sysctls in Linux.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Has the device note when it received each frame, in ticks of its own clock, if it can: see
    /// [`socket::Arrival`](crate::socket::Arrival). Whether it can, [`Stack::rx_timestamps`] tells.
    pub fn rx_timestamps(mut self, wanted: bool) -> Self {
        self.rx_timestamps = wanted;
        self
    }

    /// How threads wait that accept or read, unless a listener, a stream or a call says otherwise:
    /// [`Waiting::SpinThenPark`] if this is not said. Threads that spin are to have a CPU each, beside
    /// those of the lcores.
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// Puts a bad wire between port and stack, for tests.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Starts the EAL if this process has none, sets up the port, starts the poll threads.
    ///
    /// # Errors
    /// See [`StartError`]: each says what to do.
    pub fn start(self) -> Result<Stack, StartError> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let Prepared { eal, port, pairs, pools, engine } = self.prepare(None)?;
        let (lcores, queues) = (eal.lcores(), pairs.len());
        let (engines, listeners) = engines(&engine, queues);
        let clock = Clock::new(eal);
        let yields = queues >= cpus;
        let boards: Vec<_> = (0..queues).map(|_| Arc::new(Board::default())).collect();
        let rx_pools: Vec<_> = pools.iter().map(|pools| pools.rx.clone()).collect();
        let listening = {
            let listeners = listeners.clone();
            Box::new(move || listeners.queues())
        };
        let sight = Sight {
            settings: self.settings.clone(),
            interface: engine.interface,
            device: port.id().name().unwrap_or_default(),
            lcores: lcores.to_vec(),
            boards: boards.clone(),
            pools: rx_pools.clone(),
            listening,
            list: Mutex::default(),
        };
        let mut stack = Stack {
            port,
            interface: engine.interface,
            settings: self.settings,
            waiting: self.waiting,
            listeners,
            boards: boards.clone(),
            _sight: sight.show(eal),
            pools: rx_pools,
            threads: Vec::new(),
            clock,
            yields,
        };
        let (ready, started) = mpsc::channel();
        let parts = lcores.iter().zip(pairs).zip(engines).zip(pools).zip(boards);
        for ((((lcore, (rx, tx)), mut engine), pools), board) in parts {
            if let Some(fragments) = fragments(eal, &stack.settings, &pools, lcore.numa_node)? {
                engine.set_reassembly(Box::new(fragments));
            }
            let role = if stack.threads.is_empty() { Role::Speaks } else { Role::Listens };
            engine.home().set_clock(move || clock.now());
            let poll_loop = PollLoop {
                lcore: *lcore,
                plan: plan(rx.descriptors()),
                rx,
                tx,
                pool: pools.rx,
                tx_pool: pools.tx,
                spare: pools.spare,
                engine,
                clock,
                faults: self.faults,
                yields,
                claims: Some(role),
                board,
            };
            let ready = ready.clone();
            let run = move || {
                poll_loop.run(eal, move |outcome| {
                    let _ = ready.send(outcome);
                });
            };
            let thread = thread::Builder::new().name(format!("prequeue-{}", lcore.id)).spawn(run);
            stack.threads.push(thread.map_err(|error| StartError::Thread(error.to_string()))?);
        }
        drop(ready);
        for _ in 0..queues {
            let outcome = started.recv().unwrap_or_else(|_| Err("it has panicked".to_owned()));
            outcome.map_err(StartError::Thread)?;
        }
        Ok(stack)
    }
}
