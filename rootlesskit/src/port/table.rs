//! The published ports of a driver, with what the driver keeps of each.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use api::{PortId, PortSpec, PortStatus};

/// What must be unique: protocol, parent address and parent port, as text.
type Key = (String, String, i64);

fn key(spec: &PortSpec) -> Key {
    let (proto, ip, port) = spec.conflict_key();
    (proto.to_owned(), ip.to_owned(), port)
}

/// Ports by number. Numbers count up from 1 and are never used again.
#[derive(Debug)]
pub(super) struct Table<T> {
    ports: BTreeMap<PortId, (PortSpec, T)>,
    index: HashMap<Key, PortId>,
    last: PortId,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { ports: BTreeMap::new(), index: HashMap::new(), last: 0 }
    }

    /// The number that the next port gets, unless there is a port like it.
    pub(super) fn reserve(&self, spec: &PortSpec) -> anyhow::Result<PortId> {
        if let Some(id) = self.index.get(&key(spec)) {
            bail!("conflict with ID {id}");
        }
        Ok(self.last + 1)
    }

    pub(super) fn insert(&mut self, id: PortId, spec: PortSpec, value: T) -> PortStatus {
        self.last = self.last.max(id);
        self.index.insert(key(&spec), id);
        self.ports.insert(id, (spec.clone(), value));
        PortStatus { id, spec }
    }

    /// # Errors
    /// There is no port of that number.
    pub(super) fn get(&self, id: PortId) -> anyhow::Result<&(PortSpec, T)> {
        self.ports.get(&id).with_context(|| format!("unknown port id: {id}"))
    }

    #[cfg(feature = "gateway")]
    pub(super) fn get_mut(&mut self, id: PortId) -> Option<&mut T> {
        self.ports.get_mut(&id).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, id: PortId) -> anyhow::Result<(PortSpec, T)> {
        let Some((spec, value)) = self.ports.remove(&id) else { bail!("unknown port id: {id}") };
        self.index.remove(&key(&spec));
        Ok((spec, value))
    }

    pub(super) fn list(&self) -> Vec<PortStatus> {
        self.ports
            .iter()
            .map(|(id, (spec, _))| PortStatus { id: *id, spec: spec.clone() })
            .collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PortSpec, &mut T)> {
        self.ports.values_mut().map(|(spec, value)| (&*spec, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
