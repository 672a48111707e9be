//! What the programs print.

use anyhow::{Context, Result, ensure};

/// A rate per second, and how long requests took in milliseconds where the program tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) rate: f64,
    pub(super) mean_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

/// The first number behind a word that a line begins with.
fn number(text: &str, start: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(start))?;
    line.split_whitespace().next()?.parse().ok()
}

/// pgbench(1): transactions.
pub(super) fn pgbench(text: &str) -> Result<Figures> {
    let rate = number(text, "tps =").with_context(|| format!("pgbench says no tps: {text}"))?;
    let failed = number(text, "number of failed transactions:").unwrap_or(0.0);
    ensure!(failed == 0.0, "pgbench: {failed} transactions failed");
    Ok(Figures { rate, mean_ms: number(text, "latency average ="), p99_ms: None })
}

/// redis-benchmark(1) with `--csv`: one test's requests.
pub(super) fn redis(text: &str, test: &str) -> Result<Figures> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().split(',').map(|cell| cell.trim_matches('"').to_owned()).collect()
    };
    let mut lines = text.lines().map(cells);
    let head = lines
        .find(|line| line.first().is_some_and(|cell| cell == "test"))
        .with_context(|| format!("redis-benchmark prints no heading: {text}"))?;
    let line = lines
        .find(|line| line.first().is_some_and(|cell| cell == test))
        .with_context(|| format!("redis-benchmark says nothing of {test}: {text}"))?;
    let column = |name: &str| {
        let index = head.iter().position(|cell| cell == name)?;
        line.get(index)?.parse::<f64>().ok()
    };
    let rate = column("rps").with_context(|| format!("redis-benchmark says no rps: {text}"))?;
    Ok(Figures { rate, mean_ms: column("avg_latency_ms"), p99_ms: column("p99_latency_ms") })
}

/// wrk(1) with `--latency`: requests.
pub(super) fn wrk(text: &str) -> Result<Figures> {
    let rate =
        number(text, "Requests/sec:").with_context(|| format!("wrk says no rate: {text}"))?;
    for problem in ["Non-2xx or 3xx responses:", "Socket errors:"] {
        let found = text.lines().find(|line| line.trim_start().starts_with(problem));
        ensure!(found.is_none(), "wrk: {}", found.unwrap_or_default().trim());
    }
    let after = |start: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(start))?;
        milliseconds(line.split_whitespace().next()?)
    };
    Ok(Figures { rate, mean_ms: after("Latency "), p99_ms: after("99%") })
}

/// A time as wrk(1) prints it, in milliseconds.
fn milliseconds(text: &str) -> Option<f64> {
    // The longer units first: each ends in an s.
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3600e3)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbench_says_transactions_and_their_mean() {
        let text = "pgbench (15.18)\ntransaction type: <builtin: select only>\nquery mode: simple\n\
                    number of failed transactions: 0 (0.000%)\nlatency average = 0.427 ms\n\
                    initial connection time = 12.345 ms\ntps = 18710.123456 (without initial connection time)\n";
        let want = Figures { rate: 18710.123456, mean_ms: Some(0.427), p99_ms: None };
        assert_eq!(pgbench(text).unwrap(), want);
        let bad = text.replace("transactions: 0 ", "transactions: 7 ");
        assert!(pgbench(&bad).unwrap_err().to_string().contains("7 transactions failed"));
        assert!(pgbench("pgbench: error: connection refused").is_err());
    }

    #[test]
    fn redis_benchmark_says_one_line_a_test() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                    \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"SET\",\"57012.54\",\"0.452\",\"0.104\",\"0.431\",\"0.631\",\"1.015\",\"3.351\"\n\
                    \"GET\",\"61000.00\",\"0.400\",\"0.100\",\"0.400\",\"0.600\",\"0.900\",\"2.000\"\n";
        let want = Figures { rate: 57012.54, mean_ms: Some(0.452), p99_ms: Some(1.015) };
        assert_eq!(redis(text, "SET").unwrap(), want);
        assert_eq!(redis(text, "GET").unwrap().p99_ms, Some(0.9));
        assert!(redis(text, "INCR").is_err() && redis("Could not connect", "SET").is_err());
    }

    #[test]
    fn wrk_says_times_in_the_unit_that_fits() {
        let text = |p99: &str| {
            format!(
                "Running 2s test @ http://127.0.0.1:20607/1k\n  2 threads and 32 connections\n  \
                 Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   655.11us  1.02ms  20.59ms   92.14%\n    \
                 Req/Sec    25.7k     2.10k   30.11k    70.00%\n  Latency Distribution\n     50%  500.00us\n     \
                 99%    {p99}\n  102600 requests in 2.00s, 126.0MB read\nRequests/sec:  51300.12\n\
                 Transfer/sec:     63.00MB\n"
            )
        };
        for (p99, want) in [("950.00us", 0.95), ("4.00ms", 4.0), ("1.25s", 1250.0), ("1.50m", 90e3)]
        {
            let found = wrk(&text(p99)).unwrap();
            assert_eq!(found.rate, 51300.12);
            assert!((found.p99_ms.unwrap() - want).abs() < 1e-9, "{p99}: {found:?}");
            assert!((found.mean_ms.unwrap() - 0.65511).abs() < 1e-9, "{found:?}");
        }
        for bad in [
            "  Socket errors: connect 0, read 3, write 0, timeout 0",
            "  Non-2xx or 3xx responses: 5",
        ] {
            let error = wrk(&(text("1ms") + bad)).unwrap_err().to_string();
            assert!(error.contains(bad.trim()), "{error}");
        }
        assert!(wrk("unable to connect to 127.0.0.1:20607 Connection refused").is_err());
    }
}
