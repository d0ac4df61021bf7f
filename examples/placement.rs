//! Where shards go on this machine, and why: one for each core, near the disk under the current
//! folder.
//!
//! Run it with `cargo run --example placement`; `longship topology` tells more.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;

use longship_rt::placement::{PlacementRequest, plan};
use longship_rt::topology::{Machine, devices_under};

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::discover()?;
    let devices = devices_under(Path::new("."));
    println!("machine: {machine}");
    println!("disks:   {devices:?}");
    let request = PlacementRequest { devices, ..PlacementRequest::default() };
    println!("plan:    {}", plan(&machine, &request)?);
    Ok(())
}
