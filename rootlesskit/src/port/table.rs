//! The published ports of a driver, with what the driver keeps of each.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use api::{PortId, PortSpec, PortStatus};
use budget::Budget;

/// What must be unique: protocol, parent address and parent port, as text.
type Key = (String, String, i64);

fn key(spec: &PortSpec) -> Key {
    let (proto, ip, port) = spec.conflict_key();
    (proto.to_owned(), ip.to_owned(), port)
}

/// Ports by number. Numbers count up from 1 and are never used again.
#[derive(Debug)]
pub(crate) struct Table<T> {
    ports: BTreeMap<PortId, (PortSpec, T)>,
    index: HashMap<Key, PortId>,
    last: PortId,
    /// The limit of open files, and how many ports it allows.
    most: Option<(u64, usize)>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { ports: BTreeMap::new(), index: HashMap::new(), last: 0, most: None }
    }

    /// A table of ports that take descriptors.
    pub(crate) fn within(budget: &Budget) -> Self {
        Self { most: Some((budget.limit, budget.ports)), ..Self::new() }
    }

    /// The number that the next port gets, unless there is a port like it, or no room for another one.
    pub(crate) fn reserve(&self, spec: &PortSpec) -> anyhow::Result<PortId> {
        if let Some(id) = self.index.get(&key(spec)) {
            bail!("conflict with ID {id}");
        }
        if let Some((limit, most)) = self.most
            && self.ports.len() >= most
        {
            bail!(
                "no room for another published port: the limit of open files, {limit}, allows {most}\nhint: raise the limit with LimitNOFILE= in the service or ulimit -Hn, or remove a port"
            );
        }
        Ok(self.last + 1)
    }

    /// Whether there is room for `others` descriptors beside one for each port.
    pub(crate) fn has_room_for(&self, others: usize) -> bool {
        self.most.is_none_or(|(_, most)| self.ports.len() + others <= most)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PortId, &T)> {
        self.ports.iter().map(|(id, (_, value))| (*id, value))
    }

    pub(crate) fn insert(&mut self, id: PortId, spec: PortSpec, value: T) -> PortStatus {
        self.last = self.last.max(id);
        self.index.insert(key(&spec), id);
        self.ports.insert(id, (spec.clone(), value));
        PortStatus { id, spec }
    }

    pub(crate) fn get(&self, id: PortId) -> anyhow::Result<&(PortSpec, T)> {
        self.ports.get(&id).with_context(|| format!("unknown port id: {id}"))
    }

    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut T> {
        self.ports.get_mut(&id).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, id: PortId) -> anyhow::Result<(PortSpec, T)> {
        let Some((spec, value)) = self.ports.remove(&id) else { bail!("unknown port id: {id}") };
        self.index.remove(&key(&spec));
        Ok((spec, value))
    }

    pub(crate) fn list(&self) -> Vec<PortStatus> {
        self.ports
            .iter()
            .map(|(id, (spec, _))| PortStatus { id: *id, spec: spec.clone() })
            .collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&PortSpec, &mut T)> {
        self.ports.values_mut().map(|(spec, value)| (&*spec, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_beyond_the_budget_are_refused_until_one_is_withdrawn() {
        let budget = Budget::new(64, budget::DataPath::Gateway);
        let mut table = Table::within(&budget);
        let spec = |n: usize| format!(":{}:80/tcp", 2000 + n).parse::<PortSpec>().unwrap();
        for n in 0..budget.ports {
            let id = table.reserve(&spec(n)).unwrap();
            table.insert(id, spec(n), ());
        }
        let error = table.reserve(&spec(budget.ports)).unwrap_err().to_string();
        let wanted = format!("the limit of open files, 64, allows {}\nhint: ", budget.ports);
        assert!(error.contains(&wanted), "{error}");
        table.remove(1).unwrap();
        table.reserve(&spec(budget.ports)).unwrap();
    }

    #[test]
    fn numbers_are_never_reused_and_equal_ports_conflict() {
        let spec = |text: &str| text.parse::<PortSpec>().unwrap();
        let mut table = Table::new();
        let first = spec("0.0.0.0:8080:80/tcp");
        let id = table.reserve(&first).unwrap();
        assert_eq!(table.insert(id, first.clone(), ()).id, 1);
        assert_eq!(table.reserve(&first).unwrap_err().to_string(), "conflict with ID 1");
        assert_eq!(table.reserve(&spec("0.0.0.0:8080:80/udp")).unwrap(), 2);
        table.remove(1).unwrap();
        assert_eq!(table.reserve(&first).unwrap(), 2);
        assert!(table.remove(1).unwrap_err().to_string().contains("unknown port id: 1"));
        assert!(table.list().is_empty());
    }
}
