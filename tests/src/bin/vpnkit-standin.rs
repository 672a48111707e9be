//! Stands in for vpnkit: `vpnkit --ethernet SOCKET --mtu M [--host-ip IP]`, version 22 of its protocol.
//!
//! Written from the protocol's description. It gives its clients 192.168.65.3 by DHCP (a lease of `STANDIN_LEASE`
//! seconds), answers ARP and ping, and passes datagrams on, those for port 53 of 192.168.65.1 to `STANDIN_DNS`. Frames
//! with another Ethernet address than the assigned one are dropped, as a switch with port security would. No TCP.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Ethernet address of the gateway, and of each client.
const GATEWAY_MAC: [u8; 6] = [2, 0x50, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0x50, 0, 0, 0, 2];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 3);
/// EtherTypes and IP protocols.
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];
const ICMP: u8 = 1;
const UDP: u8 = 17;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).map(String::as_str)
    };
    let path = value("--ethernet").ok_or("no --ethernet")?;
    let mtu: u16 = value("--mtu").unwrap_or("1500").parse()?;
    let open = value("--host-ip") != Some("0.0.0.0");
    let listener = UnixListener::bind(path)?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(e) = serve(stream, mtu, open) {
                eprintln!("client left: {e}");
            }
        });
    }
    Ok(())
}

/// One client, from its first word to its last frame.
fn serve(mut stream: UnixStream, mtu: u16, open: bool) -> Result<()> {
    let mut hello = [0; 49];
    stream.read_exact(&mut hello)?;
    if hello[..9] != *b"VMN3T\x16\0\0\0" {
        return Err("not a client of version 22".into());
    }
    stream.write_all(&hello)?;
    let mut request = [0; 41];
    stream.read_exact(&mut request)?;
    let uuid = String::from_utf8_lossy(&request[1..37]).into_owned();
    if request[0] != 1 || uuid.matches('-').count() != 4 {
        return Ok(stream.write_all(b"\x02\x04uuid")?);
    }
    eprintln!("client {uuid}");
    let mut port = vec![1];
    port.extend(mtu.to_le_bytes());
    port.extend((mtu + 50).to_le_bytes());
    port.extend(CLIENT_MAC);
    port.resize(1 + 257, 0);
    stream.write_all(&port)?;
    let cable = Cable(Arc::new(Mutex::new(stream.try_clone()?)));
    let mut flows = HashMap::new();
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::from(u16::from_le_bytes(length))];
        stream.read_exact(&mut frame)?;
        if frame.get(6..12) != Some(&CLIENT_MAC[..]) {
            eprintln!("a frame of a stranger");
            continue;
        }
        take(&frame, &cable, &mut flows, open);
    }
}

/// The way back to the client.
#[derive(Clone)]
struct Cable(Arc<Mutex<UnixStream>>);

impl Cable {
    fn send(&self, kind: [u8; 2], payload: &[u8]) {
        let frame = [&CLIENT_MAC[..], &GATEWAY_MAC, &kind, payload].concat();
        let Ok(length) = u16::try_from(frame.len()) else { return };
        if let Ok(mut stream) = self.0.lock() {
            let _ = stream.write_all(&[&length.to_le_bytes()[..], &frame].concat());
        }
    }

    fn ip(&self, protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) {
        let Ok(length) = u16::try_from(20 + payload.len()) else { return };
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        header.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        header.extend(src.octets());
        header.extend(dst.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        self.send(IPV4, &[&header, payload].concat());
    }

    fn udp(&self, src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) {
        let Ok(length) = u16::try_from(8 + payload.len()) else { return };
        let mut datagram = src.port().to_be_bytes().to_vec();
        datagram.extend(dst.port().to_be_bytes());
        datagram.extend(length.to_be_bytes());
        // No checksum, which IPv4 allows.
        datagram.extend([0, 0]);
        datagram.extend(payload);
        self.ip(UDP, *src.ip(), *dst.ip(), &datagram);
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap_or_default().to_be_bytes()
}

/// A flow of datagrams: the client's port and where it goes.
type Flows = HashMap<(u16, SocketAddrV4), UdpSocket>;

/// Does what a frame asks for; `None` for one that is malformed or asks for nothing.
fn take(frame: &[u8], cable: &Cable, flows: &mut Flows, open: bool) -> Option<()> {
    let payload = frame.get(14..)?;
    if frame[12..14] == ARP {
        let asked: [u8; 4] = payload.get(24..28)?.try_into().ok()?;
        if payload.get(6..8)? == [0, 1] && Ipv4Addr::from(asked) != CLIENT {
            let (sender, rest) = (&payload[8..18], &payload[..6]);
            cable.send(ARP, &[rest, &[0, 2], &GATEWAY_MAC, &asked, sender].concat());
        }
        return Some(());
    }
    if frame[12..14] != IPV4 {
        return None;
    }
    let header = usize::from(payload.first()? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes(*payload.get(2..)?.first_chunk()?));
    let dst = Ipv4Addr::from(*payload.get(16..)?.first_chunk::<4>()?);
    let body = payload.get(header..length)?;
    match payload[9] {
        ICMP if body.first() == Some(&8) => {
            let mut echo = body.to_vec();
            echo[..4].fill(0);
            let sum = checksum(&echo);
            echo[2..4].copy_from_slice(&sum);
            cable.ip(ICMP, dst, CLIENT, &echo);
        }
        UDP => {
            let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
            let (from, to, data) = (port(0)?, port(2)?, body.get(8..)?);
            if to == 67 {
                return dhcp(data, cable);
            }
            pass_on(from, SocketAddrV4::new(dst, to), data, cable, flows, open);
        }
        _ => return None,
    }
    Some(())
}

/// Sends a datagram from a socket of the host, and what comes back to the client.
fn pass_on(
    from: u16,
    to: SocketAddrV4,
    data: &[u8],
    cable: &Cable,
    flows: &mut Flows,
    open: bool,
) -> Option<()> {
    let dns = std::env::var("STANDIN_DNS").unwrap_or_else(|_| "10.77.0.2".to_owned());
    let real = match (*to.ip() == GATEWAY, to.port()) {
        (true, 53) => SocketAddrV4::new(dns.parse().ok()?, 53),
        (true, port) if open => SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        (true, _) => return None,
        (false, _) => to,
    };
    if let Some(socket) = flows.get(&(from, to)) {
        socket.send(data).ok()?;
        return Some(());
    }
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(real).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    socket.send(data).ok()?;
    let (answers, cable) = (socket.try_clone().ok()?, cable.clone());
    std::thread::spawn(move || {
        let mut buf = [0; 1500];
        while let Ok(n) = answers.recv(&mut buf) {
            cable.udp(to, SocketAddrV4::new(CLIENT, from), &buf[..n]);
        }
    });
    flows.insert((from, to), socket);
    Some(())
}

/// Answers DISCOVER with OFFER and REQUEST with ACK (RFC 2131).
fn dhcp(request: &[u8], cable: &Cable) -> Option<()> {
    let options = request.get(240..)?;
    let kind = *options.get(2).filter(|_| options.starts_with(&[53, 1]))?;
    let ciaddr = Ipv4Addr::from(*request.get(12..)?.first_chunk::<4>()?);
    eprintln!("dhcp {kind} from {ciaddr}");
    let lease: u32 =
        std::env::var("STANDIN_LEASE").ok().and_then(|s| s.parse().ok()).unwrap_or(7200);
    let mut reply = request.get(..240)?.to_vec();
    reply[0] = 2;
    reply[16..20].copy_from_slice(&CLIENT.octets());
    reply.extend([53, 1, if kind == 1 { 2 } else { 5 }]);
    for (number, value) in [
        (54, GATEWAY.octets()),
        (1, [255, 255, 255, 0]),
        (3, GATEWAY.octets()),
        (6, GATEWAY.octets()),
        (51, lease.to_be_bytes()),
    ] {
        reply.extend([number, 4]);
        reply.extend(value);
    }
    reply.push(255);
    let to = if ciaddr.is_unspecified() { Ipv4Addr::BROADCAST } else { ciaddr };
    cable.udp(SocketAddrV4::new(GATEWAY, 67), SocketAddrV4::new(to, 68), &reply);
    Some(())
}
