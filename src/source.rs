//! The directory: what its files say, before anything in them has a meaning.

pub mod document;
