//! The client protocol over byte slices: frames, messages, info text. Pure: no socket, no clock.
