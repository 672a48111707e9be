//! The outputs that scripts read.

use std::io::{self, Write};

use api::{Info, PortStatus};

/// Space behind the widest cell of a column. The last column has it too, as in Go's RootlessKit.
const PADDING: usize = 4;

pub(super) fn table(ports: &[PortStatus], out: &mut dyn Write) -> io::Result<()> {
    let header = ["ID", "PROTO", "PARENTIP", "PARENTPORT", "CHILDIP", "CHILDPORT", "ALLOWFROM"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(ports.iter().map(|PortStatus { id, spec }| {
        vec![
            id.to_string(),
            spec.proto.clone(),
            spec.parent_ip.clone(),
            spec.parent_port.to_string(),
            spec.child_ip.clone(),
            spec.child_port.to_string(),
            spec.allow_from.join("+"),
        ]
    }));
    // RootlessKit does not have the last column, and scripts read this.
    if ports.iter().all(|port| port.spec.allow_from.is_empty()) {
        rows.iter_mut().for_each(|row| row.truncate(6));
    }
    columns(&rows, header.len(), PADDING).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Lines with these cells, in columns that are so much wider than their widest cell, also the last one. The first are
/// `texts`, to the left; the others are numbers, to the right.
pub(super) fn columns<R: AsRef<[String]>>(rows: &[R], texts: usize, padding: usize) -> Vec<String> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.as_ref().len()), 0);
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &R| {
        let cells = row.as_ref().iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            if at < texts { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        cells.map(|cell| cell + &" ".repeat(padding)).collect()
    };
    rows.iter().map(line).collect()
}

pub(super) fn info(info: &Info, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", api::types::to_json_pretty(info));
    }
    writeln!(out, "- REST API version: {}", info.api_version)?;
    writeln!(out, "- Implementation version: {}", info.version)?;
    writeln!(out, "- State Directory: {}", info.state_dir)?;
    writeln!(out, "- Child PID: {}", info.child_pid)?;
    if let Some(driver) = &info.network_driver {
        let dns = driver.dns.iter().map(ToString::to_string).collect::<Vec<_>>();
        writeln!(out, "- Network Driver: {}", driver.driver)?;
        writeln!(out, "  - DNS: [{}]", dns.join(" "))?;
        if let Some(ip) = driver.child_ip {
            writeln!(out, "  - IP: {ip}")?;
        }
    }
    if let Some(driver) = &info.port_driver {
        writeln!(out, "- Port Driver: {}", driver.driver)?;
        writeln!(out, "  - Supported protocols: [{}]", driver.protos.join(" "))?;
    }
    Ok(())
}
