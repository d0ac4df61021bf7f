//! What ships, when, how, and what a reply means. Pure: plain data in, plain data out, `now` as an
//! argument.
