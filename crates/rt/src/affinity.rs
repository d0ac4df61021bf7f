//! The CPUs that a thread may run on, as the operating system numbers them.
#![expect(unsafe_code, reason = "the system's sets of CPUs are plain memory that it fills in")]

use std::mem::{self, MaybeUninit};

/// The CPUs that the calling thread may run on, ascending; none when the system does not tell.
pub fn allowed_cpus() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the size it is given, which is that of the set; 0 is this
    // thread.
    let failed =
        unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    // SAFETY: all-zero bytes are an empty set, and the kernel has written CPUs at most.
    let set = unsafe { set.assume_init() };
    if failed != 0 {
        return Vec::new();
    }
    // SAFETY: reads a bit of the set, and each of these is within it.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Binds the calling thread, and those it starts from now on, to one CPU. False when the system
/// refuses, or has no such CPU.
pub(crate) fn bind_to(cpu: usize) -> bool {
    if cpu >= libc::CPU_SETSIZE as usize {
        return false;
    }
    // SAFETY: all-zero bytes are an empty set.
    let mut set = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
    // SAFETY: sets a bit of the set, within it as looked at above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads a set from this stack, of the size it is told; 0 is this thread.
    unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_bound_may_run_there_only() {
        let all = allowed_cpus();
        let last = *all.last().unwrap();
        let bound = std::thread::spawn(move || (bind_to(last), allowed_cpus())).join().unwrap();
        assert_eq!(bound, (true, vec![last]));
        assert_eq!(allowed_cpus(), all, "the others stay free");
        assert!(!bind_to(usize::MAX) && !bind_to(libc::CPU_SETSIZE as usize - 1));
    }
}
