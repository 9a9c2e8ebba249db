//! What the fuzz targets do with their bytes. Each function panics if the library breaks a promise.
//!
//! `stack/tests/fuzz_bodies.rs` runs the same functions on random bytes with every `cargo test`.

mod oracle;
mod steps;

use prequeue::buf::Checksum;
use prequeue::wire::ethernet::{self, MacAddr};
use prequeue::wire::frame::{MAX_CONTROL_LEN, TcpFrame};
use prequeue::wire::{
    Family, Flags, FourTuple, Outgoing, arp, icmp, icmpv6, ipv4, ipv6, layers, parse_tcp, tcp,
};

/// A frame off the wire: whatever parses is in bounds, is what the layers say, and is read alike
/// when it is sent again.
pub fn tcp_frame(bytes: &[u8]) {
    // With the device's word a fuzzer gets past the checksums.
    for word in [Checksum::Good, Checksum::Transport, Checksum::Unknown, Checksum::Bad] {
        let parsed = parse_tcp(bytes, word);
        assert_eq!(parsed, layers::parse(bytes, word));
        if let Ok(parsed) = parsed {
            send_again(bytes, &parsed);
        }
    }
}

/// An option list: no more is read than there is, and what was read is read alike when sent again.
pub fn tcp_options(bytes: &[u8]) {
    let list = &bytes[..bytes.len().min(40) & !3];
    let mut header = [0; tcp::MAX_HEADER_LEN];
    header[12] = ((tcp::HEADER_LEN + list.len()) as u8) << 2;
    header[tcp::HEADER_LEN..][..list.len()].copy_from_slice(list);
    let exact = &header[..tcp::HEADER_LEN + list.len()];

    let (syn, sack) = (tcp::syn_options(exact), tcp::sack_blocks(exact));
    assert_eq!((syn, &sack), (tcp::syn_options(&header), &tcp::sack_blocks(&header)));
    assert!(sack.len() <= 4 && sack.len() * 8 <= list.len());

    let out = Outgoing {
        mss: syn.mss,
        window_scale: syn.window_scale,
        sack_permitted: syn.sack_permitted,
        ..Outgoing::default()
    };
    assert_eq!(tcp::syn_options(&sent(&out)), syn);
    let out = Outgoing { sack, ..Outgoing::default() };
    assert_eq!(tcp::sack_blocks(&sent(&out)), out.sack);
}

/// A frame that is not TCP: ARP is sent again as it was read, an echo request gets its data back.
pub fn other_frame(bytes: &[u8]) {
    let Some(header) = ethernet::parse(bytes) else { return };
    let mut again = [0; ethernet::MAX_HEADER_LEN];
    let ethernet::Ethernet { dst, src, ethertype, vlan, header_len } = header;
    assert_eq!(ethernet::emit(&mut again, dst, src, vlan, ethertype), header_len);
    if ethertype != ethernet::VLAN {
        assert_eq!(ethernet::parse(&again[..header_len]), Some(header));
    }
    let payload = &bytes[header_len..];
    if let Some(packet) = arp::parse(payload) {
        let mut again = [0; arp::PACKET_LEN];
        arp::emit(&mut again, &packet);
        assert_eq!(again, payload[..arp::PACKET_LEN]);
        assert_eq!(packet.reply(MacAddr::BROADCAST).target_mac, packet.sender_mac);
    }
    datagram6(payload);
    if let Ok(ip) = ipv4::parse(payload, Checksum::Good) {
        let message = ip.payload(payload);
        let mut reply = vec![0; ipv4::HEADER_LEN + message.len()];
        if let Some(len) = icmp::echo_reply(&mut reply, &ip, message) {
            assert_eq!(len, reply.len());
            let back = ipv4::parse(&reply, Checksum::Unknown).expect("what is emitted is parsed");
            assert_eq!((back.src, back.dst), (ip.dst, ip.src));
            assert_eq!(back.payload(&reply)[4..], message[4..]);
        }
    }
}

/// A datagram of IPv6: what is skipped is within it, and an ICMPv6 message is read alike when it is sent
/// again, or comes back.
pub fn datagram6(datagram: &[u8]) {
    let Ok(ip) = ipv6::parse(datagram) else { return };
    assert!(ipv6::HEADER_LEN <= ip.header_len && ip.header_len <= ip.total_len);
    assert!(ip.total_len <= datagram.len() && datagram[ip.protocol_at] == ip.protocol);
    let message = ip.payload(datagram);
    if ip.fragment || ip.protocol != ipv6::ICMP {
        return;
    }
    let mut again = vec![0; icmpv6::MAX_DISCOVERY_LEN.max(ipv6::HEADER_LEN + message.len())];
    let len = match icmpv6::parse(&ip, message) {
        Ok(icmpv6::Message::EchoRequest) => {
            icmpv6::echo_reply(&mut again, &ip, message).expect("there is room")
        }
        Ok(icmpv6::Message::Solicitation(asked)) => {
            let Some(mac) = asked.source_mac else { return };
            icmpv6::emit_solicitation(&mut again, (ip.src, Some(mac)), ip.dst, asked.target)
        }
        _ => return,
    };
    let back = ipv6::parse(&again[..len]).expect("what is emitted is parsed");
    assert!(icmpv6::parse(&back, back.payload(&again)).is_ok());
}

/// What happens to a connection: it does what an array of marks does.
pub fn tcb(bytes: &[u8]) {
    let (setup, ops) = steps::of(bytes);
    oracle::run(&setup, &ops);
}

fn send_again(bytes: &[u8], parsed: &TcpFrame) {
    let TcpFrame { tuple, segment, header, payload, tos, .. } = *parsed;
    let header = &bytes[usize::from(header)..usize::from(payload)];
    let payload = &bytes[usize::from(payload)..][..segment.len as usize];
    let syn = tcp::syn_options(header);
    let out = Outgoing {
        seq: segment.seq,
        ack: segment.ack,
        // The acknowledgement number is written only with ACK.
        flags: segment.flags.with(Flags::ACK),
        window: segment.window,
        mss: syn.mss,
        window_scale: syn.window_scale,
        sack_permitted: syn.sack_permitted,
        ts: segment.ts,
        sack: tcp::sack_blocks(header),
        ..Outgoing::default()
    };
    let mut frame = vec![0; MAX_CONTROL_LEN + payload.len()];
    let (dst, src) = (MacAddr::BROADCAST, MacAddr::default());
    let ethertype = match tuple.family() {
        Family::V4 => ethernet::IPV4,
        Family::V6 => ethernet::IPV6,
    };
    let at = ethernet::emit(&mut frame, dst, src, None, ethertype);
    // The longest payload leaves no room for a longer header than it came with.
    if usize::from(u16::MAX) < tcp::MAX_HEADERS_LEN + payload.len() {
        return;
    }
    let len = tcp::emit(&mut frame[at..], &tuple, &out, tos, payload);
    frame.truncate(at + len);
    let again = parse_tcp(&frame, Checksum::Unknown).expect("what is emitted is parsed");
    assert_eq!(
        (again.tuple.local_addr, again.tuple.remote_port),
        (tuple.remote_addr, tuple.local_port)
    );
    let mut expected = segment;
    (expected.flags, expected.urgent) = (out.flags, 0);
    assert_eq!(again.segment, expected);
    assert_eq!(&frame[usize::from(again.payload)..], payload);
    let header = &frame[usize::from(again.header)..usize::from(again.payload)];
    assert_eq!(tcp::syn_options(header), syn);
}

/// The TCP header of an emitted segment.
fn sent(out: &Outgoing) -> Vec<u8> {
    let tuple = FourTuple {
        local_addr: [10, 0, 0, 1].into(),
        remote_addr: [10, 0, 0, 2].into(),
        local_port: 7,
        remote_port: 7,
    };
    let mut buf = vec![0; tcp::MAX_HEADERS_LEN];
    let len = tcp::emit(&mut buf, &tuple, out, 0, &[]);
    buf.truncate(len);
    buf.split_off(ipv4::HEADER_LEN)
}
