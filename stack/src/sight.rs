//! What a running stack shows through DPDK's telemetry socket: counters, lcores, connections, memory,
//! settings.
//!
//! Asked on DPDK's telemetry threads. It reads what lcores publish now and then; a list of connections is
//! asked of them and waited for, here and not there. Nothing that is shown can be changed from outside.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::dpdk::telemetry::{self, Answer, Command, Exhibit, Value};
use crate::dpdk::{Eal, Lcore, Mempool};
use crate::lcore::poll::Board;
use crate::lcore::{Interface, Listed, Population, Roll};
use crate::tcp::listen::QueueState;
use crate::tcp::tcb::{MemInfo, TcpInfo};
use crate::tcp::{Counter, Counters, Settings};

/// What can be asked. DPDK takes no longer help than 127 bytes.
const COMMANDS: [Command; 6] = [
    Command { name: "info", help: "Returns what runs: version, addresses, lcores, listeners" },
    Command {
        name: "counters",
        help: "Returns counters by nstat's names. Parameters: an lcore (optional)",
    },
    Command { name: "lcores", help: "Returns what each lcore holds and has done" },
    Command {
        name: "sockets",
        help: "Returns connections, largest holders of memory first. Parameters: first row, list (optional)",
    },
    Command { name: "memory", help: "Returns the use of packet buffers" },
    Command { name: "settings", help: "Returns the settings" },
];

/// Connections in one answer: what DPDK sends in one message holds no more, with all that is told of each.
const PAGE: usize = 16;

/// Connections of one lcore that are listed at most; some 16 MiB of them.
const MOST_LISTED: usize = 1 << 16;

/// Connections that may open between asking how many there are and listing them.
const MORE: usize = 256;

/// How long an lcore may take to list its connections.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who listens: the port, and how full its queues are.
pub(crate) type Listening = (u16, QueueState);

/// A stack as it is seen from outside.
pub(crate) struct Sight {
    pub settings: Settings,
    pub interface: Interface,
    /// The device's name.
    pub device: String,
    pub lcores: Vec<Lcore>,
    pub boards: Vec<Arc<Board>>,
    /// The pool of each lcore for what is received.
    pub pools: Vec<Mempool>,
    /// Tells who listens, if that can be told on any thread.
    pub listening: Box<dyn Fn() -> Vec<Listening> + Send + Sync>,
    pub list: Mutex<List>,
}

/// The list of connections that was made last.
#[derive(Debug, Default)]
pub(crate) struct List {
    number: u64,
    rows: Vec<(u32, Listed)>,
    omitted: u64,
}

impl Sight {
    /// Shows the stack for as long as what is returned lives.
    pub fn show(self, eal: &'static Eal) -> Arc<Self> {
        let sight = Arc::new(self);
        telemetry::show(eal, &COMMANDS, &sight);
        sight
    }

    fn info(&self) -> Answer {
        let standings = self.boards.first().map_or(0, |board| board.standings());
        let interface = self.interface.with_standings(standings);
        let Interface { mac, mtu, .. } = &interface;
        let mut answer = vec![
            text("version", env!("CARGO_PKG_VERSION")),
            number("pid", std::process::id()),
            text("device", &self.device),
            text("mac", mac.to_string()),
            number("mtu", *mtu),
            number("lcores", self.lcores.len() as u64),
        ];
        answer.extend(interface.vlan().map(|vlan| number("vlan", vlan)));
        let addresses = interface.nets().iter().enumerate();
        answer.extend(addresses.map(|(n, net)| {
            let is_used = interface.is_ours(net.addr);
            let note = if is_used { "" } else { " (not used)" };
            text(format!("address{n}"), format!("{net}{note}"))
        }));
        let listening = (self.listening)().into_iter().enumerate();
        answer.extend(listening.map(|(n, (port, queues))| {
            let queue = vec![
                number("port", port),
                number("waiting", queues.accept_queue),
                number("backlog", queues.backlog),
                number("half_open", queues.syn_queue),
            ];
            (format!("listener{n}"), Value::Table(queue))
        }));
        answer
    }

    fn counters(&self, lcore: &str) -> Option<Answer> {
        let mut sum = Counters::default();
        if lcore.is_empty() {
            self.boards.iter().for_each(|board| board.add_to(&mut sum));
        } else {
            self.board(lcore)?.add_to(&mut sum);
        }
        let line = |&counter: &Counter| number(counter.nstat_name(), sum.value(counter));
        Some(Counter::ALL.iter().map(line).collect())
    }

    fn board(&self, lcore: &str) -> Option<&Board> {
        let id: u32 = lcore.trim().parse().ok()?;
        let at = self.lcores.iter().position(|lcore| lcore.id == id)?;
        self.boards.get(at).map(|board| &**board)
    }

    fn lcores(&self) -> Answer {
        let rows = self.lcores.iter().zip(&self.boards).zip(&self.pools);
        rows.map(|((lcore, board), pool)| {
            let mut counters = Counters::default();
            board.add_to(&mut counters);
            let Population { sockets, requests, time_waits } = board.population();
            let row = vec![
                number("cpu", lcore.cpu),
                number("numa_node", lcore.numa_node),
                number("sockets", sockets),
                number("requests", requests),
                number("time_waits", time_waits),
                number("in_segs", counters.value(Counter::InSegs)),
                number("out_segs", counters.value(Counter::OutSegs)),
                number("mbufs_in_use", pool.in_use()),
                number("mbufs", pool.capacity()),
            ];
            (lcore.id.to_string(), Value::Table(row))
        })
        .collect()
    }

    fn memory(&self) -> Answer {
        let sum = |of: fn(&Mempool) -> u32| self.pools.iter().map(|p| u64::from(of(p))).sum();
        let mut counters = Counters::default();
        self.boards.iter().for_each(|board| board.add_to(&mut counters));
        let Population { sockets, requests, time_waits } =
            self.boards.iter().map(|board| board.population()).sum();
        let at_pressure = self.boards.iter().map(|board| board.desk.at_pressure().len() as u64);
        vec![
            number::<u64>("mbufs", sum(Mempool::capacity)),
            number::<u64>("mbufs_in_use", sum(Mempool::in_use)),
            number("pressure_drops", counters.value(Counter::PoolPressureDrop)),
            number::<u64>("holders_at_pressure", at_pressure.sum()),
            number("sockets", sockets),
            number("requests", requests),
            number("time_waits", time_waits),
        ]
    }

    fn settings(&self) -> Answer {
        let all = Settings::ALL.iter();
        all.map(|setting| text(setting.name(), setting.value(&self.settings))).collect()
    }

    /// A page of the list of connections: of a new one from the first on, or of the last one made, if it
    /// has the number that is asked for.
    fn sockets(&self, parameter: &str) -> Option<Answer> {
        let mut numbers = parameter.split(',').map(|word| word.trim().parse::<u64>());
        let from = match numbers.next() {
            None => 0,
            Some(_) if parameter.is_empty() => 0,
            Some(from) => from.ok()?,
        };
        let wanted = numbers.next().transpose().ok()?;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        match wanted {
            Some(wanted) if wanted != list.number => return None,
            Some(_) => {}
            None => {
                let (rows, omitted) = self.list_all();
                *list = List { number: list.number + 1, rows, omitted };
            }
        }
        let from = usize::try_from(from).ok()?;
        let mut answer = vec![
            number("list", list.number),
            number("total", list.rows.len() as u64),
            number("omitted", list.omitted),
        ];
        let page = list.rows.iter().enumerate().skip(from).take(PAGE);
        answer.extend(page.map(|(at, row)| (at.to_string(), Value::Table(describe(row)))));
        Some(answer)
    }

    /// All connections, those that hold most memory first, and the number of those left out. An lcore
    /// that does not answer has none.
    fn list_all(&self) -> (Vec<(u32, Listed)>, u64) {
        let ask = |board: &Arc<Board>| {
            let Population { sockets, requests, time_waits } = board.population();
            let there_are = sockets as usize + requests as usize + time_waits as usize;
            board.desk.ask_for_list(Roll::with_room_for((there_are + MORE).min(MOST_LISTED)))
        };
        let questions: Vec<u32> = self.boards.iter().map(ask).collect();
        let end = Instant::now() + PATIENCE;
        let (mut rows, mut omitted) = (Vec::new(), 0);
        for ((board, question), lcore) in self.boards.iter().zip(questions).zip(&self.lcores) {
            let list = loop {
                match board.desk.take_list(question) {
                    Some(list) => break list,
                    None if Instant::now() >= end => break Roll::default(),
                    None => thread::sleep(Duration::from_micros(50)),
                }
            };
            rows.extend(list.rows.into_iter().map(|row| (lcore.id, row)));
            omitted += list.omitted;
        }
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.rmem));
        (rows, omitted)
    }
}

impl Exhibit for Sight {
    /// The device's: no two stacks share one.
    fn name(&self) -> &str {
        &self.device
    }

    fn summary(&self) -> Answer {
        let Population { sockets, .. } = self.boards.iter().map(|board| board.population()).sum();
        let mut answer = vec![
            text("name", &self.device),
            number("lcores", self.lcores.len() as u64),
            number("sockets", sockets),
        ];
        let addresses = self.interface.nets().iter().enumerate();
        answer.extend(addresses.map(|(n, net)| text(format!("address{n}"), net.to_string())));
        answer
    }

    fn answer(&self, command: &str, parameter: &str) -> Option<Answer> {
        match command {
            "info" => Some(self.info()),
            "counters" => self.counters(parameter),
            "lcores" => Some(self.lcores()),
            "sockets" => self.sockets(parameter),
            "memory" => Some(self.memory()),
            "settings" => Some(self.settings()),
            _ => None,
        }
    }
}

/// A connection, value by value.
fn describe((lcore, listed): &(u32, Listed)) -> Answer {
    let Listed { local, peer, state: _, unread, rmem, backlog, detail } = listed;
    let mut answer = vec![
        text("state", listed.state_name()),
        text("local", local.to_string()),
        text("peer", peer.to_string()),
        number("lcore", *lcore),
        number("rmem", *rmem),
        number("backlog", *backlog),
    ];
    answer.extend(unread.map(|unread| number("recv_q", unread)));
    if let Some((info, memory)) = detail {
        answer.extend(details(info, memory));
    }
    answer
}

/// What TCP_INFO and SO_MEMINFO tell of it, without Linux's prefix.
fn details(info: &TcpInfo, memory: &MemInfo) -> Answer {
    let MemInfo { rmem_alloc: _, rcvbuf, drops } = *memory;
    let mut options = Vec::new();
    for (bit, name) in [
        (TcpInfo::TIMESTAMPS, "ts"),
        (TcpInfo::SACK, "sack"),
        (TcpInfo::WSCALE, "wscale"),
        (TcpInfo::ECN, "ecn"),
        (TcpInfo::ECN_SEEN, "ecnseen"),
    ] {
        if info.tcpi_options & bit != 0 {
            options.push(name);
        }
    }
    vec![
        number("rcvbuf", rcvbuf),
        number("drops", drops),
        text("options", options.join(" ")),
        number("snd_wscale", info.tcpi_snd_wscale),
        number("rcv_wscale", info.tcpi_rcv_wscale),
        number("rto", info.tcpi_rto),
        number("ato", info.tcpi_ato),
        number("snd_mss", info.tcpi_snd_mss),
        number("rcv_mss", info.tcpi_rcv_mss),
        number("advmss", info.tcpi_advmss),
        number("pmtu", info.tcpi_pmtu),
        number("rtt", info.tcpi_rtt),
        number("rttvar", info.tcpi_rttvar),
        number("rcv_rtt", info.tcpi_rcv_rtt),
        number("rcv_space", info.tcpi_rcv_space),
        number("rcv_ssthresh", info.tcpi_rcv_ssthresh),
        number("rcv_wnd", info.tcpi_rcv_wnd),
        number("snd_wnd", info.tcpi_snd_wnd),
        number("bytes_acked", info.tcpi_bytes_acked),
        number("bytes_received", info.tcpi_bytes_received),
        number("segs_in", info.tcpi_segs_in),
        number("segs_out", info.tcpi_segs_out),
        number("data_segs_in", info.tcpi_data_segs_in),
        number("rcv_ooopack", info.tcpi_rcv_ooopack),
        number("last_data_recv", info.tcpi_last_data_recv),
        number("last_ack_recv", info.tcpi_last_ack_recv),
    ]
}

fn number<N: Into<u64>>(name: impl Into<String>, number: N) -> (String, Value) {
    (name.into(), Value::Number(number.into()))
}

fn text(name: impl Into<String>, text: impl Into<String>) -> (String, Value) {
    (name.into(), Value::Text(text.into()))
}

impl std::fmt::Debug for Sight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sight").field("device", &self.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_form_that_dpdk_takes() {
        for Command { name, help } in COMMANDS {
            assert!(name.chars().all(|c| c.is_ascii_lowercase()) && help.len() < 128, "{name}");
        }
    }

    #[test]
    fn names_of_counters_and_settings_have_the_form_that_dpdk_takes() {
        let counters = Counter::ALL.iter().map(|counter| counter.nstat_name());
        let settings = Settings::ALL.iter().map(|setting| setting.name().to_owned());
        for name in counters.chain(settings) {
            let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            assert!(is_word && name.len() < 64, "{name}");
        }
        // Answers are tables of at most so many (RTE_TEL_MAX_DICT_ENTRIES).
        assert!(Counter::ALL.len() <= 256 && Settings::ALL.len() <= 256);
    }
}
