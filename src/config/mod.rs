//! Text to configuration: one table of keys with unit, range, default and whether it may change at
//! run time. Pure.
