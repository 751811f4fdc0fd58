//! The tree: what chains ask for, one criterion below the other.

use std::collections::HashMap;
use std::hash::Hash;

use super::criteria::{Alpn, Destination, DirectSource, Port, ServerName, Source, SourcePort, Transport, Type};
use super::{ChainMatch, Facts};

/// A property of connections that chains ask for.
pub(super) trait Criterion: Default {
    /// What a chain may ask for.
    type Key: Eq + Hash;

    /// What a chain asks for: one of these, or nothing if there is none.
    fn wanted(chain: &ChainMatch) -> Vec<Self::Key>;

    /// Takes down what is asked for, so that it can be found.
    fn note(&mut self, _key: &Self::Key) {}

    /// The most specific of what is asked for that a connection has.
    fn best<'a, T>(&self, asked: &'a HashMap<Self::Key, T>, facts: &Facts<'_>) -> Option<&'a T>;
}

/// A part of the tree.
pub(super) trait Branch: Default {
    /// Adds a chain by its place; the place of one that takes the same connections if there is one.
    fn insert(&mut self, chain: &ChainMatch, place: usize) -> Result<(), usize>;

    /// The place of the chain for a connection.
    fn find(&self, facts: &Facts<'_>) -> Option<usize>;
}

/// A level of the tree: below each value that chains ask for, those chains; and those that ask for none.
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

    fn find(&self, facts: &Facts<'_>) -> Option<usize> {
        // Most levels of most listeners ask for nothing.
        let asked = (!self.asked.is_empty()).then(|| self.criterion.best(&self.asked, facts));
        match asked.flatten() {
            Some(below) => below.find(facts),
            None => self.any.as_ref()?.find(facts),
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

    fn find(&self, _facts: &Facts<'_>) -> Option<usize> {
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
    /// A tree of chains, which are known by their places.
    ///
    /// # Errors
    /// Two that take the same connections.
    pub(super) fn new<'a>(chains: impl Iterator<Item = &'a ChainMatch>) -> Result<Self, (usize, usize)> {
        let mut tree = Self::default();
        for (place, chain) in chains.enumerate() {
            tree.0.insert(chain, place).map_err(|other| (other, place))?;
        }
        Ok(tree)
    }

    /// The place of the chain for a connection.
    pub(super) fn find(&self, facts: &Facts<'_>) -> Option<usize> {
        self.0.find(facts)
    }
}
