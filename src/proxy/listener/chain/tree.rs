//! The tree of filter chains: one level for each criterion.

use std::collections::HashMap;
use std::hash::Hash;

use super::criteria::{Alpn, Destination, DirectSource, Port, ServerName, Source, SourcePort, Transport, Type};
use super::{ChainMatch, MatchInputs};

/// A criterion of filter chain matching.
pub(super) trait Criterion: Default {
    /// A value that chains match.
    type Key: Eq + Hash;

    /// The values that a chain matches; empty: any.
    fn wanted(chain: &ChainMatch) -> Vec<Self::Key>;

    /// Prepares for finding this value.
    fn note(&mut self, _key: &Self::Key) {}

    /// The most specific value, of those that chains match, that a connection has.
    fn best<'a, T>(&self, asked: &'a HashMap<Self::Key, T>, inputs: &MatchInputs<'_>) -> Option<&'a T>;
}

/// A subtree.
pub(super) trait Branch: Default {
    /// Inserts the chain at position `place`; fails with the position of one that matches the same connections.
    fn insert(&mut self, chain: &ChainMatch, place: usize) -> Result<(), usize>;

    /// The position of the chain for a connection.
    fn find(&self, inputs: &MatchInputs<'_>) -> Option<usize>;
}

/// A level of the tree: a subtree for each value of the criterion, and one for chains that match any.
#[derive(Debug)]
pub(super) struct Level<C: Criterion, T> {
    criterion: C,
    asked: HashMap<C::Key, T>,
    any: Option<Box<T>>,
}

impl<C: Criterion, T> Default for Level<C, T> {
    fn default() -> Self {
        Self {
            criterion: C::default(),
            asked: HashMap::new(),
            any: None,
        }
    }
}

impl<C: Criterion, T: Branch> Branch for Level<C, T> {
    fn insert(&mut self, chain: &ChainMatch, place: usize) -> Result<(), usize> {
        let wanted = C::wanted(chain);
        if wanted.is_empty() {
            return self.any.get_or_insert_default().insert(chain, place);
        }
        for key in wanted {
            self.criterion.note(&key);
            self.asked.entry(key).or_default().insert(chain, place)?;
        }
        Ok(())
    }

    fn find(&self, inputs: &MatchInputs<'_>) -> Option<usize> {
        // Most listeners use few criteria.
        let asked = (!self.asked.is_empty()).then(|| self.criterion.best(&self.asked, inputs));
        match asked.flatten() {
            Some(below) => below.find(inputs),
            None => self.any.as_ref()?.find(inputs),
        }
    }
}

/// Below the last level: one chain.
#[derive(Debug, Default)]
pub(super) struct Leaf(Option<usize>);

impl Branch for Leaf {
    fn insert(&mut self, _chain: &ChainMatch, place: usize) -> Result<(), usize> {
        match self.0 {
            Some(other) if other != place => Err(other),
            Some(_) | None => {
                self.0 = Some(place);
                Ok(())
            }
        }
    }

    fn find(&self, _facts: &MatchInputs<'_>) -> Option<usize> {
        self.0
    }
}

type BySource = Level<DirectSource, Level<Type, Level<Source, Level<SourcePort, Leaf>>>>;
type ByProtocol = Level<ServerName, Level<Transport, Level<Alpn, BySource>>>;
type ByDestination = Level<Port, Level<Destination, ByProtocol>>;

/// All levels, in Envoy's order.
#[derive(Debug, Default)]
pub(super) struct Tree(ByDestination);

impl Tree {
    /// A tree of chains, identified by their positions.
    ///
    /// # Errors
    /// Two that match the same connections.
    pub(super) fn new<'a>(chains: impl Iterator<Item = &'a ChainMatch>) -> Result<Self, (usize, usize)> {
        let mut tree = Self::default();
        for (place, chain) in chains.enumerate() {
            tree.0.insert(chain, place).map_err(|other| (other, place))?;
        }
        Ok(tree)
    }

    /// The position of the chain for a connection.
    pub(super) fn find(&self, inputs: &MatchInputs<'_>) -> Option<usize> {
        self.0.find(inputs)
    }
}
