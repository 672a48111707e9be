//! Samples, and what follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a sample was taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// This project's rootlesskit.
    Ours,
    /// The Go program.
    Theirs,
    /// unshare(1), and for a network helper that helper alone in the namespace.
    Floor,
    /// A bare splice(2) proxy between the namespaces.
    Splice,
    /// pasta with implicit ports, started without rootlesskit.
    Pasta,
    /// No namespaces: the server listens where the client is.
    Loopback,
    /// This project's rootlesskit with its network and port driver `gateway`.
    Gateway,
    /// The same with an egress policy that allows all of the load whoever sends it.
    GatewayRules,
    /// The same with one whose decision depends on the sender of the load.
    GatewaySenders,
    /// An earlier build's network `gateway`.
    GatewayBefore,
    /// slirp4netns at its best MTU.
    Slirp,
    /// The same at an MTU of 1500.
    Slirp1500,
    /// pasta as a network driver, at its best MTU.
    PastaNet,
    /// The same at an MTU of 1500.
    Pasta1500,
    /// The Go program with its driver `gvisor-tap-vsock`, if it has that.
    Gvisor,
    /// A veth on a bridge, made by root: what lxc-user-nic does.
    Kernel,
    /// This project's network `gateway` with the port driver `builtin`.
    GatewayBuiltin,
    /// The port driver `builtin` and Docker's own docker-proxy.
    DockerProxy,
    /// Between two hosts: a VXLAN link in the namespaces of two of our gateways.
    Overlay,
    /// The same of root on the hosts themselves.
    RootVxlan,
    /// From one host to the other over the link between them.
    HostToHost,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
            Self::Floor => "floor",
            Self::Splice => "splice",
            Self::Pasta => "pasta",
            Self::Loopback => "loopback",
            Self::Gateway => "gateway",
            Self::GatewayRules => "gateway with 100 rules",
            Self::GatewaySenders => "gateway with 100 rules, one by sender",
            Self::GatewayBefore => "gateway, earlier build",
            Self::Slirp => "slirp4netns",
            Self::Slirp1500 => "slirp4netns 1500",
            Self::PastaNet => "pasta net",
            Self::Pasta1500 => "pasta net 1500",
            Self::Gvisor => "gvisor-tap-vsock",
            Self::Kernel => "kernel veth",
            Self::GatewayBuiltin => "gateway + builtin",
            Self::DockerProxy => "builtin + docker-proxy",
            Self::Overlay => "overlay",
            Self::RootVxlan => "root's VXLAN",
            Self::HostToHost => "host to host",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) value: f64,
    pub(crate) quiet: bool,
}

/// A median with the range around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Fewer than two samples were undisturbed, so all count.
    pub(crate) disturbed: bool,
}

impl Spread {
    fn of(mut values: Vec<f64>, disturbed: bool) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max, disturbed })
    }

    /// Of all values, those that were not disturbed if there are two.
    fn of_quiet(all: &[(f64, bool)]) -> Option<Self> {
        let quiet: Vec<f64> = all.iter().filter(|(_, quiet)| *quiet).map(|(v, _)| *v).collect();
        let disturbed = quiet.len() < 2 && quiet.len() < all.len();
        let values = if disturbed { all.iter().map(|(value, _)| *value).collect() } else { quiet };
        Self::of(values, disturbed)
    }
}

/// Something that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// As `--only` names it.
    pub(crate) part: String,
    /// Empty for every row of the part.
    pub(crate) row: String,
    pub(crate) side: String,
    /// Empty for every round.
    pub(crate) rounds: Vec<usize>,
    pub(crate) reason: String,
}

/// Every sample that was taken, by what it measures and of what, and those that could not be taken.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    samples: BTreeMap<(String, Side), Vec<Sample>>,
    /// The part of the benchmark that runs.
    part: String,
    missing: Vec<Missing>,
}

impl Sheet {
    pub(crate) fn add(&mut self, row: &str, side: Side, round: usize, value: f64, quiet: bool) {
        let key = (row.to_owned(), side);
        self.samples.entry(key).or_default().push(Sample { round, value, quiet });
    }

    /// Begins a part, which what is missing from now on belongs to.
    pub(crate) fn begin(&mut self, part: &str) {
        part.clone_into(&mut self.part);
    }

    /// Keeps why a row has no sample of a round, or of any. An empty row is every row of the part.
    pub(crate) fn miss(&mut self, row: &str, side: Side, round: Option<usize>, reason: String) {
        let (part, row, side) = (self.part.clone(), row.to_owned(), side.name().to_owned());
        let mut new = Missing { part, row, side, rounds: Vec::new(), reason };
        let same = self.missing.iter_mut().find(|old| {
            let rounds = old.rounds.clone();
            **old == Missing { rounds, ..new.clone() }
        });
        match same {
            Some(same) => same.rounds.extend(round),
            None => {
                new.rounds.extend(round);
                self.missing.push(new);
            }
        }
    }

    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// What there are samples of.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, Side)> {
        self.samples.keys().map(|(row, side)| (row.as_str(), *side))
    }

    pub(crate) fn samples(&self, row: &str, side: Side) -> &[Sample] {
        self.samples.get(&(row.to_owned(), side)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn spread(&self, row: &str, side: Side) -> Option<Spread> {
        let samples = self.samples(row, side);
        Spread::of_quiet(&samples.iter().map(|s| (s.value, s.quiet)).collect::<Vec<_>>())
    }

    /// All samples together, disturbed ones too: for what must not happen at all.
    pub(crate) fn sum(&self, row: &str, side: Side) -> Option<f64> {
        let samples = self.samples(row, side);
        (!samples.is_empty()).then(|| samples.iter().map(|sample| sample.value).sum())
    }

    /// `above` divided by `below`, round by round.
    pub(crate) fn ratio(&self, row: &str, above: Side, below: Side) -> Option<Spread> {
        self.ratio_of((row, above), (row, below))
    }

    /// The same of any two rows.
    pub(crate) fn ratio_of(&self, above: (&str, Side), below: (&str, Side)) -> Option<Spread> {
        let below = self.samples(below.0, below.1);
        let pairs = self.samples(above.0, above.1).iter().filter_map(|a| {
            let b = below.iter().find(|b| b.round == a.round && b.value != 0.0)?;
            Some((a.value / b.value, a.quiet && b.quiet))
        });
        Spread::of_quiet(&pairs.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(samples: &[(Side, usize, f64, bool)]) -> Sheet {
        let mut sheet = Sheet::default();
        for (side, round, value, quiet) in samples {
            sheet.add("row", *side, *round, *value, *quiet);
        }
        sheet
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let sheet = sheet(&[
            (Side::Ours, 0, 20.0, true),
            (Side::Theirs, 0, 10.0, true),
            (Side::Ours, 1, 4.0, true),
            (Side::Theirs, 1, 1.0, true),
            (Side::Ours, 2, 9.0, true),
            (Side::Theirs, 2, 3.0, true),
            (Side::Ours, 3, 1000.0, true),
        ]);
        let ratio = sheet.ratio("row", Side::Ours, Side::Theirs).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max, ratio.disturbed), (3.0, 2.0, 4.0, false));
        assert_eq!(sheet.ratio("row", Side::Ours, Side::Pasta), None);
    }

    #[test]
    fn disturbed_samples_count_only_for_want_of_others() {
        let mut samples = vec![
            (Side::Ours, 0, 1.0, true),
            (Side::Ours, 1, 100.0, false),
            (Side::Ours, 2, 100.0, false),
        ];
        let few = sheet(&samples).spread("row", Side::Ours).unwrap();
        assert_eq!((few.median, few.disturbed), (100.0, true));
        samples.push((Side::Ours, 3, 3.0, true));
        let enough = sheet(&samples).spread("row", Side::Ours).unwrap();
        assert_eq!((enough.median, enough.max, enough.disturbed), (2.0, 3.0, false));
    }
    #[test]
    fn what_is_missing_is_listed_once_with_its_rounds() {
        let mut sheet = Sheet::default();
        sheet.begin("tcp");
        for round in [0, 2] {
            sheet.miss("tcp.up1", Side::Pasta, Some(round), "nothing arrived".to_owned());
        }
        sheet.miss("", Side::Splice, None, "it does not start".to_owned());
        let [arrived, started] = sheet.missing() else { panic!("{sheet:?}") };
        assert_eq!(
            (&*arrived.row, &*arrived.part, &*arrived.rounds),
            ("tcp.up1", "tcp", &[0, 2][..])
        );
        assert!(started.row.is_empty() && started.rounds.is_empty() && started.side == "splice");
    }
}
