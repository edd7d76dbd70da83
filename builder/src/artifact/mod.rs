//! What the builder writes: one writer per format.
