//! A table whose keys stay unique after their entry is gone, so that a late event or timer cannot hit
//! a newcomer in the same place.

/// Generations fit in 24 bits, so that a key and a kind fit in epoll's 64.
const GENERATIONS: u32 = 1 << 24;

/// Names one entry of a [`Slab`] for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A table.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl Key {
    /// A key for what is in no table, and for places that are not filled yet. The first entry of a table has it too.
    pub const NONE: Self = Self { index: 0, generation: 0 };

    /// Epoll's user data for an entry of this kind: the kind in the top byte, the generation (24 bits) below, the index
    /// in the lower half.
    pub(crate) fn token(self, kind: u8) -> u64 {
        u64::from(kind) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_token(token: u64) -> (u8, Self) {
        let [kind, g2, g1, g0, i3, i2, i1, i0] = token.to_be_bytes();
        let index = u32::from_be_bytes([i3, i2, i1, i0]);
        (kind, Self { index, generation: u32::from_be_bytes([0, g2, g1, g0]) })
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    /// A table without entries.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// Adds an entry.
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(index as usize)
        {
            entry.1 = Some(value);
            return Key { index, generation: entry.0 };
        }
        // Every entry owns a descriptor, of which a process has at most 2^31.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    /// The entry, unless it is gone.
    pub fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.entries.get(key.index as usize)?;
        if *generation == key.generation { value.as_ref() } else { None }
    }

    /// The entry, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        if *generation == key.generation { value.as_mut() } else { None }
    }

    /// Takes the entry out; its key finds nothing any more.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        *generation = (*generation + 1) % GENERATIONS;
        self.free.push(key.index);
        Some(value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> + '_ {
        self.entries.iter().zip(0u32..).filter_map(|((generation, value), index)| {
            Some((Key { index, generation: *generation }, value.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_place_has_a_new_key() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!((slab.remove(a), slab.get(a), slab.len()), (None, None, 1));
        let c = slab.insert('c');
        assert_eq!((c.index, c == a), (a.index, false));
        assert_eq!(slab.get(c), Some(&'c'));
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(c, &'c'), (b, &'b')]);
    }
}
