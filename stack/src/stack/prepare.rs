//! From what was asked for to a port at work: addresses checked, EAL, pools, queues.
//!
//! Called once by whoever starts a stack, before any poll thread runs. What is wrong with what was given
//! is found here, the cheap checks first; nothing is left behind by a start that fails.

use std::net::IpAddr;

use crate::dpdk::{
    Eal, Fragments, FragmentsError, Mempool, PoolConfig, PoolError, PoolPlan, Port, PortConfig,
    PortId, RxQueue, SpareMbufs, TxQueue, run_args,
};
use crate::lcore::hash::HashKey;
use crate::lcore::{EngineConfig, Interface, MOST_ADDRESSES, Net};
use crate::tcp::Settings;
use crate::tcp::isn::Secret;
use crate::wire::{Family, MacAddr, ipv6};

use super::{StackBuilder, StartError};

/// RX descriptors per queue, and TX descriptors: a millisecond of minimum frames at a gigabit.
const RX_DESCRIPTORS: u16 = 1024;
const TX_DESCRIPTORS: u16 = 512;

/// Mbufs that each lcore's pool keeps apart.
const CACHE: u32 = 256;

/// Mbufs that sockets must be able to hold: twice what a default receive buffer of 128 KiB takes,
/// and the bursts below which no data is received any more.
const LEAST_HELD: u32 = 2 * 56 + 64;

/// Mbufs per lcore if the user does not say: as many as the memory has room for.
const MBUFS: [u32; 3] = [16_383, 8_191, 4_095];

/// Mbufs per lcore for what is sent: the TX ring, a burst to come, and what the cache keeps.
const TX_MBUFS: u32 = 1023;
const TX_CACHE: u32 = 128;

/// Headroom of an mbuf, and what a frame has besides the datagram.
const HEADROOM: u16 = 128;
const FRAME_OVERHEAD: u16 = 22;

/// What packet buffers may be asked to take: all headers at least, and no more than their length can say.
const BUFFER_ROOMS: std::ops::RangeInclusive<u16> = 256..=32_768;

/// Data room of an mbuf as everybody has it; larger only for a larger MTU, on devices that do not scatter.
const DATA_ROOM: u16 = 2048;

/// No Ethernet address was given: the device's is taken.
const NO_MAC: MacAddr = MacAddr([0; 6]);

/// What VLANs are called: the other two numbers mean none, and nothing (IEEE 802.1Q, table 9-2).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Datagrams that every IPv4 host takes (RFC 791).
const LEAST_MTU: u16 = 576;

/// Datagrams that every link of IPv6 takes (RFC 8200 §5).
const LEAST_MTU_OF_IPV6: u16 = 1280;

/// A port at work, and all that an engine needs.
pub(crate) struct Prepared {
    pub eal: &'static Eal,
    pub port: Port,
    pub pairs: Vec<(RxQueue, TxQueue)>,
    pub pools: Vec<Pools>,
    pub engine: EngineConfig,
}

/// The pools of one lcore.
#[derive(Debug)]
pub(crate) struct Pools {
    pub rx: Mempool,
    pub tx: Mempool,
    pub spare: SpareMbufs,
}

impl StackBuilder {
    /// Everything up to the port at work, with `queues` queue pairs; if that is not said, as the
    /// builder has it.
    pub(crate) fn prepare(&self, queues: Option<usize>) -> Result<Prepared, StartError> {
        let mut interface = self.interface()?;
        self.check_mbufs()?;
        if let Some(room) = self.buffer_room.filter(|room| !BUFFER_ROOMS.contains(room)) {
            return Err(StartError::BadBufferRoom(room));
        }
        if self.eal_args.is_empty() {
            return Err(StartError::NoEalArguments);
        }
        let eal = Eal::init(run_args(self.eal_args.clone()))?;
        let id = self.choose_port(&eal.require_ports()?)?;
        let lcores = eal.lcores().len();
        let queues = match (queues, self.queues.unwrap_or(lcores)) {
            (Some(queues), _) => queues,
            (None, queues) if queues == lcores => queues,
            (None, queues) => return Err(StartError::QueuesAndLcores { queues, lcores }),
        };

        let pools = self.pools(eal, id, queues)?;
        let config = PortConfig {
            pools: pools.iter().map(|pools| pools.rx.clone()).collect(),
            rx_descriptors: RX_DESCRIPTORS,
            tx_descriptors: TX_DESCRIPTORS,
            mtu: self.mtu,
            mac: (interface.mac != NO_MAC).then_some(interface.mac.0),
            rx_timestamps: self.rx_timestamps,
            rx_vlan_strip: self.vlan.is_some(),
            ..PortConfig::default()
        };
        let mut port = Port::configure(id, config)?;
        let pairs = port.start()?;
        interface.mac = MacAddr(port.mac());
        interface.mtu = port.mtu();
        let mut groups: Vec<_> = interface.groups().map(|group| ipv6::group_mac(group).0).collect();
        if !groups.is_empty() {
            if interface.mtu < LEAST_MTU_OF_IPV6 {
                return Err(StartError::BadMtuOfIpv6(interface.mtu));
            }
            port.join(&mut groups);
        }
        let engine = EngineConfig {
            settings: self.settings.clone(),
            interface,
            secret: Secret::new(random_key()),
            key: HashKey::random(),
            max_connections: self.max_connections,
        };
        Ok(Prepared { eal, port, pairs, pools, engine })
    }

    /// What was said about the interface, checked. Ethernet address and MTU may be the device's.
    fn interface(&self) -> Result<Interface, StartError> {
        let mac = match &self.mac {
            None => NO_MAC,
            Some(text) => text
                .parse()
                .ok()
                .filter(|mac: &MacAddr| !mac.is_multicast() && *mac != NO_MAC)
                .ok_or_else(|| StartError::BadMac(text.clone()))?,
        };
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < LEAST_MTU) {
            return Err(StartError::BadMtu(mtu));
        }
        let mut interface = Interface::new(mac, LEAST_MTU);
        if let Some(vlan) = self.vlan {
            if !VLANS.contains(&vlan) {
                return Err(StartError::BadVlan(vlan));
            }
            interface = interface.with_vlan(vlan);
        }
        for text in &self.addresses {
            let bad = || StartError::BadAddress(text.clone());
            let net = text.parse().ok().filter(Net::is_of_a_host).ok_or_else(bad)?;
            if interface.nets().len() == MOST_ADDRESSES || interface.is_ours(net.addr) {
                return Err(StartError::TooManyAddresses(text.clone()));
            }
            interface = interface.with_net(net);
        }
        if interface.nets().is_empty() {
            return Err(StartError::NoAddress);
        }
        for text in &self.gateways {
            let fits = |gateway: &IpAddr| {
                !interface.is_ours(*gateway)
                    && interface.is_on_link(*gateway)
                    && interface.gateway(Family::of(*gateway)).is_none()
            };
            let gateway: Option<IpAddr> = text.parse().ok().filter(fits);
            let gateway = gateway.ok_or_else(|| StartError::BadGateway {
                gateway: text.clone(),
                address: self.addresses.join(", "),
            })?;
            interface = interface.with_gateway(gateway);
        }
        Ok(interface)
    }

    /// Whether the pool asked for leaves anything to sockets.
    fn check_mbufs(&self) -> Result<(), StartError> {
        let reserve = plan(RX_DESCRIPTORS).reserve();
        let least = reserve + LEAST_HELD;
        match self.mbufs {
            Some(mbufs) if mbufs < least => Err(StartError::TooFewMbufs { mbufs, reserve, least }),
            _ => Ok(()),
        }
    }

    /// The port that was asked for, or the only one.
    fn choose_port(&self, ports: &[PortId]) -> Result<PortId, StartError> {
        let name = |port: &PortId| port.name().unwrap_or_else(|| port.number().to_string());
        let names = || ports.iter().map(name).collect::<Vec<_>>().join(", ");
        match (&self.port, ports) {
            (None, [only]) => Ok(*only),
            (None, _) => Err(StartError::SeveralPorts { names: names() }),
            (Some(wanted), _) => ports
                .iter()
                .find(|port| name(port) == *wanted || port.number().to_string() == *wanted)
                .copied()
                .ok_or_else(|| StartError::NoSuchPort { wanted: wanted.clone(), names: names() }),
        }
    }

    /// The pools of each lcore.
    fn pools(
        &self,
        eal: &'static Eal,
        port: PortId,
        queues: usize,
    ) -> Result<Vec<Pools>, StartError> {
        // Where the device scatters long frames over several, large ones would be a waste on short
        // frames, each of which keeps a whole one.
        let mtu = if port.scatters() { 0 } else { self.mtu.unwrap_or(0) };
        let room = self.buffer_room.unwrap_or(DATA_ROOM).max(mtu.saturating_add(FRAME_OVERHEAD));
        let data_room = room.next_multiple_of(64) + HEADROOM;
        let make = |mbufs: u32| -> Result<Vec<Pools>, PoolError> {
            let pools = (0..queues).map(|lcore| {
                let numa_node = eal.lcores().get(lcore).map(|lcore| lcore.numa_node);
                let config = PoolConfig {
                    mbufs,
                    cache: CACHE,
                    data_room,
                    numa_node,
                    ..PoolConfig::default()
                };
                let rx = Mempool::new(eal, &config)?;
                let spare = SpareMbufs::new(eal, mbufs, numa_node)?;
                let data_room = DATA_ROOM + HEADROOM;
                let config = PoolConfig { mbufs: TX_MBUFS, cache: TX_CACHE, data_room, ..config };
                Ok(Pools { rx, tx: Mempool::new(eal, &config)?, spare })
            });
            pools.collect()
        };
        if let Some(mbufs) = self.mbufs {
            return Ok(make(mbufs)?);
        }
        let [more @ .., least] = MBUFS;
        match more.into_iter().find_map(|mbufs| make(mbufs).ok()) {
            Some(pools) => Ok(pools),
            None => Ok(make(least)?),
        }
    }
}

/// What of an lcore's pool is never lent to sockets. What is sent has a pool of its own.
pub(crate) fn plan(rx_descriptors: u16) -> PoolPlan {
    let rx_descriptors = rx_descriptors.into();
    PoolPlan { rx_descriptors, tx_descriptors: 0, held: 0, cache: CACHE }
}

/// Where an lcore's fragments wait, if the settings want them put together: for as many datagrams as
/// they allow, but no more than an eighth of the pool.
pub(crate) fn fragments(
    eal: &'static Eal,
    settings: &Settings,
    pools: &Pools,
    numa_node: u32,
) -> Result<Option<Fragments>, FragmentsError> {
    if !settings.ip_reassembly {
        return Ok(None);
    }
    let truesize = pools.rx.frame_room() + u32::from(HEADROOM);
    let allowed = settings.ipfrag_high_thresh / (Fragments::MOST * truesize);
    let datagrams = allowed.min(pools.rx.capacity() / 8 / Fragments::MOST);
    Fragments::new(eal, datagrams, settings.ipfrag_time, Some(numa_node)).map(Some)
}

/// 128 random bits.
fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    for half in key.chunks_exact_mut(8) {
        half.copy_from_slice(&HashKey::random().mix(0, 0).to_le_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::super::Stack;
    use super::*;

    fn error(builder: StackBuilder) -> String {
        builder.start().expect_err("should be refused").to_string()
    }

    fn with_args() -> StackBuilder {
        Stack::builder().eal_args(["-l", "0"]).address("10.99.0.2/24")
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_starts() {
        assert!(error(Stack::builder().address("10.99.0.2/24")).contains("--vdev=net_tap0"));
        assert!(error(Stack::builder().eal_args(["-l", "0"])).contains("10.99.0.2/24"));
        for address in [
            "",
            "10.99.0.2",
            "10.99.0/24",
            "10.99.0.2/33",
            "10.99.0.255/24",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "fd00::2",
            "fd00::2/129",
            "::1/128",
            "ff02::1/16",
            "::ffff:10.0.0.1/96",
        ] {
            let text = error(with_args().address(address));
            assert!(text.contains(&format!("{address:?}")), "{text}");
        }
        for gateway in ["10.98.0.1", "10.99.0.2", "10.99.0.255", "router"] {
            assert!(error(with_args().gateway(gateway)).contains(gateway));
        }
        let second = error(with_args().gateway("10.99.0.1").gateway("10.99.0.3"));
        assert!(second.contains("one for IPv4"), "{second}");
        let twice = error(with_args().address("10.99.0.2/16"));
        assert!(twice.contains("\"10.99.0.2/16\""), "{twice}");
        let many = (3..20).fold(with_args(), |b, n| b.address(format!("10.99.0.{n}/24")));
        assert!(error(many).contains("\"10.99.0.10/24\""));
        for gateway in ["fe80::1", "fd00::1"] {
            assert!(error(with_args().gateway(gateway)).contains(gateway), "there is no IPv6");
        }
        for mac in ["02:00", "01:00:00:00:00:01", "00:00:00:00:00:00"] {
            assert!(error(with_args().mac(mac)).contains(mac));
        }
        assert!(error(with_args().mtu(500)).contains("576"));
        for vlan in [0, 4095] {
            assert!(error(with_args().vlan(vlan)).contains(&vlan.to_string()));
        }
        assert!(error(with_args().buffer_room(255)).contains("256"));
        assert!(error(with_args().mbufs(1023)).contains("1648 at least"));
    }

    #[test]
    fn a_gateway_on_the_link_is_taken() {
        let interface = with_args().gateway("10.99.0.1").interface().unwrap();
        assert_eq!(interface.gateway(Family::V4), Some([10, 99, 0, 1].into()));
        assert_eq!(
            interface.to_string(),
            "10.99.0.2/24 (00:00:00:00:00:00, MTU 576, gateway 10.99.0.1)"
        );
        let both = with_args().address("fd00:99::2/64").gateway("fe80::1").gateway("10.99.0.1");
        assert_eq!(
            both.interface().unwrap().to_string(),
            "10.99.0.2/24, fd00:99::2/64 (00:00:00:00:00:00, MTU 576, gateway 10.99.0.1, \
             gateway fe80::1)"
        );
    }
}
