//! Labels: the words by which selectors find things.

use std::sync::Arc;

/// Something that has labels, for a selector to look at.
pub trait LabelSource {
    /// The value of a label, if it is there.
    fn label(&self, key: &str) -> Option<&str>;
}

/// Labels of one object, sorted by key, one value a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// From pairs in any order; of equal keys the last one counts.
    pub fn new<K: Into<Box<str>>, V: Into<Box<str>>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let map: std::collections::BTreeMap<Box<str>, Box<str>> = pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        Self(map.into_iter().collect())
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl LabelSource for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        let i = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[i].1)
    }
}

impl<T: LabelSource + ?Sized> LabelSource for &T {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// Own labels before inherited ones: an endpoint and the profiles it inherits from.
impl<A: LabelSource, B: LabelSource> LabelSource for (A, B) {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.label(key).or_else(|| self.1.label(key))
    }
}

/// The first in the list that has it counts, as profiles are inherited from.
impl<T: LabelSource> LabelSource for [T] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|l| l.label(key))
    }
}
