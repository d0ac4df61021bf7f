//! Where frames go: destination clusters, their partition maps, and pipelined connections.
