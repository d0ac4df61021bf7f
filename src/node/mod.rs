//! The server of the client protocol over storage, one port per shard.
