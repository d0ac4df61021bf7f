//! Thread-per-core mechanisms without one domain word; home of almost all unsafe code.
