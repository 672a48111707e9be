//! Ports published to a container: the gateway, and the port driver `builtin` with docker-proxy behind it.

use anyhow::Result;

use super::way::Way;
use super::{bytes, interleave, requests};
use crate::rounds::Bench;
use crate::sheet::Side;

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let machine = bench.machine;
    let stream_ms = bench.options.sample_ms(700).to_string();
    let request_ms = bench.options.sample_ms(600).to_string();
    let sides = [Side::Gateway, Side::DockerProxy, Side::Loopback];
    let rows: Vec<&str> = bytes::names().into_iter().chain(["keep32", "conn32"]).collect();
    interleave(bench, &sides, Way::publishing, &rows, |way, place, row| {
        if bytes::names().contains(&row) {
            bytes::stream(machine, way, place, row, &stream_ms)
        } else {
            requests::request(machine, way, place, row, &request_ms)
        }
    })
}
