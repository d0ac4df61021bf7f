//! Joins rules, host and destinations on each shard; where loops run forever.
