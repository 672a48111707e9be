//! The unit of each row, by the row's name.

/// The unit that a row's values are in. Times are of one request, processor time is that of the forwarder.
pub(crate) fn unit(row: &str) -> &'static str {
    let name = |end: &str| row.strip_suffix(end);
    if let Some(counted) = name(".cpu").or(name(".sys")) {
        return match unit(counted) {
            _ if row.starts_with("apps.") => "CPU s/s",
            "Gbit/s" => "CPU s/GB",
            _ => "CPU µs",
        };
    }
    if row.ends_with(".memory_mb") {
        return "MB";
    }
    if row.ends_with(".failed") {
        return "failures";
    }
    if row.ends_with(".mean") || row.ends_with(".p50") || row.ends_with(".p99") {
        return if row.starts_with("apps.") { "ms" } else { "µs" };
    }
    let (part, rest) = row.split_once('.').unwrap_or((row, ""));
    match part {
        "start" => "ms",
        "tcp" | "speed" | "congestion" => "Gbit/s",
        "conn" | "fairness" => "connections/s",
        "keepalive" => "requests/s",
        "udp" => "packets/s",
        "memory" => "MB",
        "publish" | "remove" => "s",
        "apps" => match rest {
            "memory" => "MB",
            _ if rest.ends_with("nginx10m") => "MB/s",
            _ if rest.ends_with("pgbench") => "transactions/s",
            _ => "requests/s",
        },
        _ if rest.starts_with("mem.") => "MB",
        _ => match rest.rsplit('.').next().unwrap_or_default() {
            "udp" => "packets/s",
            end if end.starts_with("keep") => "requests/s",
            end if end.starts_with("conn") => "connections/s",
            end if end.starts_with("flow") => "flows/s",
            _ => "Gbit/s",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_tables() {
        let titles = crate::report::titles().chain(crate::net::titles());
        let titles = titles.chain(crate::overlay::titles()).chain(crate::net::policy::titles());
        for (row, title) in titles {
            // What failed is a number of requests.
            let unit = unit(&row);
            assert!(title.contains(unit) || unit == "failures", "{row}: {title}: {unit}");
        }
        for (row, want) in [
            ("apps.pub.nginx10m", "MB/s"),
            ("apps.out.redis16.cpu", "CPU s/s"),
            ("apps.out.udp.p99", "ms"),
            ("apps.memory", "MB"),
            ("congestion.bbr.out.up", "Gbit/s"),
            ("fairness.syn.flood", "connections/s"),
            ("fairness.syn.flood.p99", "µs"),
            ("overlay.tcp8.sys", "CPU s/GB"),
            ("speed.pub.down.cpu", "CPU s/GB"),
        ] {
            assert_eq!(unit(row), want, "{row}");
        }
    }
}
