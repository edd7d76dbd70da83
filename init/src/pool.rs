//! Values of which equal ones are kept once: most of a machine's services are alike in most of what there is to say of them.

use std::rc::Rc;

/// All the values that there have been, each once. What was taken from it outlasts it.
#[derive(Debug)]
pub struct Pool<T>(Vec<Rc<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Pool<T> {
    /// The one that equals `value`, which is itself if there has been none. They are compared from the last one on, because
    /// services that are alike stand together in a config. For a thousand that are all different it is half a million
    /// comparisons, which is not a hundredth of what their starts take.
    pub fn keep(&mut self, value: T) -> Rc<T> {
        if let Some(known) = self.0.iter().rev().find(|known| ***known == value) {
            return Rc::clone(known);
        }
        let new = Rc::new(value);
        self.0.push(Rc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_become_one() {
        let mut pool = Pool::default();
        let [first, other, again] = ["a", "b", "a"].map(|text| pool.keep(text.to_owned()));
        assert!(Rc::ptr_eq(&first, &again));
        assert_eq!((first.as_str(), other.as_str()), ("a", "b"));
    }
}
