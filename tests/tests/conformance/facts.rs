//! What was found out, by name.

use tests::{Context as _, Result, ensure};

/// What stands between two cells, with and without `--detach-netns`.
pub(crate) const DETACHED: &str = "; detached: ";

/// Names with what was found, in the order of the page.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    /// Adds one; a second look has to find the same.
    ///
    /// # Errors
    /// It did not.
    pub(crate) fn add(&mut self, name: &'static str, cell: impl Into<String>) -> Result<()> {
        let cell = cell.into();
        match self.get(name) {
            Ok(known) => ensure!(known == cell, "{name}: once {known:?}, then {cell:?}"),
            Err(_) => self.0.push((name, cell)),
        }
        Ok(())
    }

    /// Adds all of another look.
    ///
    /// # Errors
    /// What both looked at is not the same.
    pub(crate) fn agree(&mut self, other: Self) -> Result<()> {
        other.0.into_iter().try_for_each(|(name, cell)| self.add(name, cell))
    }

    /// What was found.
    ///
    /// # Errors
    /// Nobody looked.
    pub(crate) fn get(&self, name: &str) -> Result<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        Ok(&found.with_context(|| format!("{name:?} was not looked at"))?.1)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Puts what was found with `--detach-netns` beside this where it is not the same.
    ///
    /// # Errors
    /// They do not have the same names.
    pub(crate) fn beside(self, detached: &Self) -> Result<Self> {
        ensure!(self.0.len() == detached.0.len(), "{self:?} and {detached:?}");
        let mut both = Self::default();
        for (name, cell) in self.0 {
            let other = detached.get(name)?;
            let same = cell == other;
            both.add(name, if same { cell } else { format!("{cell}{DETACHED}{other}") })?;
        }
        Ok(both)
    }
}
