//! `rootlessctl capture`: whose packets are in the file, and what Wireshark thinks of them.

mod containers;
mod limits;
mod outbound;

use tests::{PATIENCE, Result, Running, TestBox, ensure, wait};

/// What tshark tells of a packet.
const FIELDS: [&str; 13] = [
    "frame.len",
    "frame.interface_name",
    "frame.packet_flags_direction",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "tcp.checksum.status",
    "udp.checksum.status",
];
/// Wireshark's words for directions, and for a checksum that is right.
const INBOUND: &str = "0x00000001";
const OUTBOUND: &str = "0x00000002";
const GOOD: &str = "1";

#[derive(Debug, Default, Clone)]
struct Packet {
    length: usize,
    interface: String,
    direction: String,
    src: String,
    dst: String,
    ports: [String; 2],
    tcp: bool,
    udp: bool,
    good: bool,
}

/// Reads a capture file with Debian's tshark, which complains about any that is not whole.
fn read(b: &TestBox, file: &str) -> Result<Vec<Packet>> {
    let fields: String = FIELDS.iter().map(|field| format!(" -e {field}")).collect();
    let checks =
        ["ip", "tcp", "udp"].map(|proto| format!(" -o {proto}.check_checksum:TRUE")).concat();
    let out =
        b.user(&format!("tshark -n -r {file}{checks} -T fields -E separator=,{fields}")).run()?;
    ensure!(out.code == 0 && out.stderr.is_empty(), "{out}");
    packets(&out.stdout)
}

fn packets(text: &str) -> Result<Vec<Packet>> {
    text.lines()
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let [
                length,
                interface,
                direction,
                ip,
                to_ip,
                ip6,
                to_ip6,
                tcp,
                to_tcp,
                udp,
                to_udp,
                tcp_sum,
                udp_sum,
            ] = cells[..]
            else {
                tests::bail!("tshark says {line:?}");
            };
            Ok(Packet {
                length: length.parse()?,
                interface: interface.to_owned(),
                direction: direction.to_owned(),
                src: format!("{ip}{ip6}"),
                dst: format!("{to_ip}{to_ip6}"),
                ports: [format!("{tcp}{udp}"), format!("{to_tcp}{to_udp}")],
                tcp: !tcp.is_empty(),
                udp: !udp.is_empty(),
                good: format!("{tcp_sum}{udp_sum}") == GOOD,
            })
        })
        .collect()
}

/// A capture that has begun.
fn start<'b>(b: &'b TestBox, socket: &str, args: &str) -> Result<Running<'b>> {
    let mut capture =
        b.user(&format!("exec rootlessctl --socket={socket} capture {args}")).spawn()?;
    wait::until_true("the capture has begun", PATIENCE, || {
        ensure!(capture.alive()?, "it ended: {}", capture.printed()?);
        Ok(capture.printed()?.contains("capturing on "))
    })?;
    Ok(capture)
}

/// Ends it as a service manager would; gives what it says.
fn stop(capture: Running<'_>) -> Result<String> {
    capture.signal("TERM")?;
    let out = capture.wait(PATIENCE)?;
    ensure!(out.code == 0 && out.stderr.contains("stopped by SIGTERM"), "{out}");
    ensure!(out.stderr.contains(" 0 dropped by the kernel"), "{out}");
    Ok(out.stderr)
}

/// Fails unless there is a whole conversation: packets in both directions, all with right checksums.
fn conversation(packets: &[Packet], of: &str, with: &str, tcp: bool) -> Result<()> {
    for (src, dst) in [(of, with), (with, of)] {
        let found: Vec<_> = packets
            .iter()
            .filter(|p| p.src == src && p.dst == dst && (if tcp { p.tcp } else { p.udp }))
            .collect();
        ensure!(!found.is_empty(), "nothing from {src} to {dst} in {packets:#?}");
        ensure!(found.iter().all(|p| p.good), "checksums from {src} to {dst}: {found:#?}");
    }
    Ok(())
}
