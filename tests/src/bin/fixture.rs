//! Small servers and clients that scenarios run in boxes; `fixture VERB ARGS`, see `main`.

#[path = "fixture/datagrams.rs"]
mod datagrams;
#[path = "fixture/echo.rs"]
mod echo;
#[path = "fixture/flood.rs"]
mod flood;
#[path = "fixture/keep.rs"]
mod keep;
#[path = "fixture/many.rs"]
mod many;
#[path = "fixture/mixed.rs"]
mod mixed;
#[path = "fixture/names.rs"]
mod names;
#[path = "fixture/probe.rs"]
mod probe;
#[path = "fixture/soak.rs"]
mod soak;
#[path = "fixture/storm/mod.rs"]
mod storm;
#[path = "fixture/stream.rs"]
mod stream;
#[path = "fixture/traffic.rs"]
mod traffic;
#[path = "fixture/who.rs"]
mod who;
#[path = "fixture/zone.rs"]
mod zone;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        // Answers every request with "TEXT from CLIENT-IP".
        ["http", address, text] => http(address, text),
        // Fetches http://HOST:PORT/ and prints the body.
        ["get", address] => get(address),
        // Answers A with 10.9.8.7 (peer.test: 10.77.0.2), everything else with no data.
        ["dns", address] => dns(address),
        // Sends each datagram back behind "CLIENT-IP:PORT ".
        ["udp-echo", address] => udp_echo(address),
        // Sends TEXT up to 20 times from one connected socket until an answer comes; prints it.
        ["udp-ask", address, text] => udp_ask(address, text),
        // Sends each TCP stream back; the first line is "CLIENT-IP:PORT".
        ["tcp-echo", address] => tcp_echo(address),
        // Lists open descriptors above 2 as "N TARGET", then the LISTEN_ variables and the pid.
        ["fds"] => fds(),
        // Counts SIGHUP, SIGINT and SIGUSR1 into FILE until SIGTERM, then exits with STATUS.
        ["signals", file, status] => signals(file, status.parse()?),
        // Sends the text to the socket in $NOTIFY_SOCKET, then waits for SIGTERM.
        ["notify", text] => notify(text),
        // The verbs of the gateway's scenarios; their functions tell what they do.
        ["probe", limit, targets @ ..] => probe::probe(limit, targets),
        ["udp-log", address] => probe::udp_log(address),
        ["streams", address] => stream::server(address),
        ["stream", address, command @ ..] => stream::client(address, command),
        ["echo-many", address] => many::echo(address),
        ["hold", address, count, file] => many::hold(address, count, file),
        ["hang", prefix, count] => many::hang(prefix, count),
        ["names", address, tag] => names::server(address, tag),
        ["query", server, how, name, kind, room] => names::client(server, how, name, kind, room),
        ["zone", address, file] => zone::server(address, file),
        ["keep", how, address] => keep::keep(how, address),
        ["flood", seconds, kind, from, to] => flood::flood(seconds, kind, from, to),
        ["storm", link, seed, seconds] => storm::storm(link, seed, seconds),
        ["smuggle", from, to, via] => flood::smuggle(from, to, via),
        ["soak", seconds, tcp, udp, dns] => soak::soak(seconds, tcp, udp, dns),
        ["traffic", targets @ ..] => traffic::traffic(targets),
        // Has a veth finish checksums and cut packets, as network cards do for packets in packets.
        ["card", link] => card(link),
        ["who", proto, address] => who::who(proto, address),
        ["sizes", address, before] => datagrams::sizes(address, before),
        ["churn", address, total, in_flight] => datagrams::churn(address, total, in_flight),
        ["talk", address] => datagrams::talk(address),
        ["each", address, from, count] => datagrams::each(address, from, count),
        ["anybody", address, text] => datagrams::anybody(address, text),
        ["load", address, total, clients] => who::load(address, total, clients),
        _ => Err(format!("fixture: unknown verb {args:?}").into()),
    }
}

fn ready() -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    Ok(out.flush()?)
}

fn card(link: &str) -> Result<()> {
    let features =
        ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-checksum-ip-generic"];
    Ok(netlink::ethtool::set_features(link, &features.map(|name| (name, false)))?)
}

fn ip_of(address: SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}

fn http(address: &str, text: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    ready()?;
    for stream in listener.incoming() {
        let (Ok(mut stream), text) = (stream, text.to_owned()) else { continue };
        std::thread::spawn(move || -> std::io::Result<()> {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let from = ip_of(stream.peer_addr()?);
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut buffer)? {
                    0 => break,
                    n => request.extend_from_slice(&buffer[..n]),
                }
            }
            let body = format!("{text} from {from}\n");
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
    }
    Ok(())
}

fn get(address: &str) -> Result<()> {
    use std::net::ToSocketAddrs as _;
    let to = address.to_socket_addrs()?.next().ok_or("no address")?;
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the header")?;
    if !head.contains(" 200 ") {
        return Err(head.to_owned().into());
    }
    Ok(std::io::stdout().write_all(body.as_bytes())?)
}

fn dns(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    ready()?;
    let mut packet = [0; 1500];
    loop {
        let (length, client) = socket.recv_from(&mut packet)?;
        if let Some(answer) = dns_answer(&packet[..length]) {
            socket.send_to(&answer, client)?;
        }
    }
}

/// The answer to a query with one question (RFC 1035, section 4); `None` for anything malformed.
fn dns_answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut name = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let is_a = query.get(at..at + 2)? == [0, 1];
    let question = query.get(12..at + 4)?;
    let ip = if name == ["peer", "test"] {
        Ipv4Addr::new(10, 77, 0, 2)
    } else {
        Ipv4Addr::new(10, 9, 8, 7)
    };
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(ip.octets());
    }
    Some(answer)
}

fn udp_echo(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    ready()?;
    let mut packet = vec![0; 65536];
    loop {
        let (length, client) = socket.recv_from(&mut packet)?;
        let mut answer = format!("{}:{} ", ip_of(client), client.port()).into_bytes();
        answer.extend(&packet[..length]);
        socket.send_to(&answer, client)?;
    }
}

fn udp_ask(address: &str, text: &str) -> Result<()> {
    let address: SocketAddr = address.parse()?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    // A connected socket takes answers only from the address that was asked.
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(250)))?;
    let mut packet = vec![0; 65536];
    for _ in 0..20 {
        if socket.send(text.as_bytes()).is_err() {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        if let Ok(length) = socket.recv(&mut packet) {
            println!("{}", String::from_utf8_lossy(&packet[..length]));
            return Ok(());
        }
    }
    Err(format!("no answer from {address}").into())
}

fn tcp_echo(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    ready()?;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || -> std::io::Result<()> {
            let peer = stream.peer_addr()?;
            writeln!(stream, "{}:{}", ip_of(peer), peer.port())?;
            let mut other: TcpStream = stream.try_clone()?;
            std::io::copy(&mut stream, &mut other)?;
            other.shutdown(std::net::Shutdown::Write)
        });
    }
    Ok(())
}

fn fds() -> Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number: u32 = entry.file_name().to_string_lossy().parse()?;
        let target = std::fs::read_link(entry.path())?;
        // The folder handle of this very loop is the one descriptor of its own.
        if number > 2 && !target.starts_with("/proc") {
            println!("{number} {}", target.display());
        }
    }
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("LISTEN_")) {
        println!("{name}={value}");
    }
    println!("pid {}", std::process::id());
    Ok(())
}

fn signals(file: &str, status: i32) -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let all = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGTERM];
    let set: SigSet = all.into_iter().collect();
    set.thread_block()?;
    ready()?;
    let mut text = String::new();
    std::fs::write(file, &text)?;
    loop {
        let signal = set.wait()?;
        text.push_str(signal.as_str());
        text.push('\n');
        std::fs::write(file, &text)?;
        if signal == Signal::SIGTERM {
            std::process::exit(status);
        }
    }
}

fn notify(text: &str) -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let set: SigSet = [Signal::SIGTERM].into_iter().collect();
    set.thread_block()?;
    let path = std::env::var("NOTIFY_SOCKET")?;
    std::os::unix::net::UnixDatagram::unbound()?.send_to(text.as_bytes(), path)?;
    ready()?;
    set.wait()?;
    Ok(())
}
