//! Calls of the system, by seccomp: what no server has need of answers EPERM, as where it is not permitted.

use std::{collections::BTreeMap, env, sync::OnceLock};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Has no name in every C library.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: i64 = 320;
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: i64 = 294;

/// What looks into other processes, changes the machine, or goes past what else is forbidden.
const DENIED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel and the machine.
    libc::SYS_bpf,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Keys that belong to the user.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // What it starts is not seen by a filter, and flaws of the kernel are made use of by way of both.
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
];
/// What namespaces and other roots need beside `clone`.
const NAMESPACES: &[i64] = &[libc::SYS_unshare, libc::SYS_setns, libc::SYS_chroot];
/// The family of sockets that lead to other programs of this machine, which would do what this one may not.
const AF_UNIX: u64 = 1;
/// The flags of `clone` that make namespaces: of mounts, cgroups, UTS, IPC, users, processes and networks.
const NEW: [u64; 7] = [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
/// Requests that put text into a terminal, as if somebody had typed it: TIOCSTI and TIOCLINUX.
const TYPING: [u64; 2] = [0x5412, 0x541C];
/// On x86-64 the same kernel takes calls of x32 too, with this bit in their number.
const X32: i64 = 0x4000_0000;
/// The numbers of x32 that are others than those of x86-64.
const X32_OTHERS: [(i64, i64); 5] = [
    (libc::SYS_ioctl, 514),
    (libc::SYS_ptrace, 521),
    (libc::SYS_kexec_load, 528),
    (libc::SYS_process_vm_readv, 539),
    (libc::SYS_process_vm_writev, 540),
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Programs for the kernel.
struct Filters {
    always: BpfProgram,
    /// Two, as one answers in one way alone.
    namespaces: [BpfProgram; 2],
    sockets: BpfProgram,
}

/// Restricts the thread that this is called on, and what it starts from now on. It gains no privileges by what it
/// executes any more.
pub(super) fn restrict(namespaces: bool, unix_sockets: bool) -> Result<(), String> {
    static FILTERS: OnceLock<Result<Filters, String>> = OnceLock::new();
    let filters = FILTERS.get_or_init(|| Filters::new().map_err(|cause| cause.to_string()));
    let filters = filters.as_ref().map_err(Clone::clone)?;
    let others = filters.namespaces.iter().filter(|_| !namespaces);
    let sockets = Some(&filters.sockets).filter(|_| !unix_sockets);
    for filter in others.chain(sockets).chain([&filters.always]) {
        apply_filter(filter).map_err(|cause| cause.to_string())?;
    }
    Ok(())
}

impl Filters {
    fn new() -> Result<Self, BackendError> {
        let mut always = Rules::new();
        DENIED.iter().for_each(|number| deny(&mut always, *number, Vec::new()));
        // The kernel takes 32 bits of the request.
        let typing = TYPING.map(|request| when(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request));
        deny(&mut always, libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
        let mut namespaces = Rules::new();
        NAMESPACES.iter().for_each(|number| deny(&mut namespaces, *number, Vec::new()));
        let flags = NEW.map(|flag| when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag));
        deny(&mut namespaces, libc::SYS_clone, flags.into_iter().collect::<Result<_, _>>()?);
        // Its flags lie where a filter cannot look. C libraries and runtimes go back to `clone` where it is not there.
        let mut unseen = Rules::new();
        deny(&mut unseen, libc::SYS_clone3, Vec::new());
        // Pairs within a program stay, which is how runtimes speak with what they start.
        let mut sockets = Rules::new();
        let unix = when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, AF_UNIX)?;
        deny(&mut sockets, libc::SYS_socket, vec![unix]);
        Ok(Self {
            always: program(always, libc::EPERM)?,
            namespaces: [program(namespaces, libc::EPERM)?, program(unseen, libc::ENOSYS)?],
            // As where there are none: C libraries ask the system's files then, and not its services.
            sockets: program(sockets, libc::EAFNOSUPPORT)?,
        })
    }
}

fn deny(rules: &mut Rules, number: i64, when: Vec<SeccompRule>) {
    if cfg!(target_arch = "x86_64") {
        let other = X32_OTHERS.iter().find(|(native, _)| *native == number).map_or(number, |(_, other)| *other);
        rules.insert(other | X32, when.clone());
    }
    rules.insert(number, when);
}

fn when(at: u8, bits: SeccompCmpArgLen, how: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(at, bits, how, value)?])
}

fn program(rules: Rules, answer: libc::c_int) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(env::consts::ARCH)?;
    let answer = SeccompAction::Errno(answer.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        os::{
            fd::AsRawFd as _,
            unix::net::{UnixDatagram, UnixStream},
        },
        thread,
    };

    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    use super::*;

    #[test]
    fn what_is_denied_answers_as_not_permitted_on_the_thread_and_nowhere_else() {
        // A file of the own process, which anybody may have.
        let taken = || -> rustix::io::Result<()> {
            let file = fs::File::open("/dev/null").expect("there");
            let own = pidfd_open(getpid(), PidfdFlags::empty())?;
            pidfd_getfd(&own, file.as_raw_fd(), PidfdGetfdFlags::empty()).map(drop)
        };
        let before = taken();
        let (applied, within, status) = thread::spawn(move || {
            let applied = restrict(false, false);
            (applied, taken(), fs::read_to_string("/proc/thread-self/status").expect("there"))
        })
        .join()
        .expect("no panic");
        assert_eq!(taken(), before, "others are as they were");
        match applied {
            Ok(()) => {
                assert_eq!(within, Err(rustix::io::Errno::PERM));
                assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
            }
            Err(why) => eprintln!("this kernel has no seccomp, so that nothing is judged: {why}"),
        }
    }

    #[test]
    fn threads_and_children_are_started_as_before() {
        let started = thread::spawn(|| {
            restrict(false, false).and_then(|()| {
                thread::spawn(|| {}).join().expect("a thread");
                let ended: io::Result<_> = std::process::Command::new("true").status();
                ended.map(|status| status.success()).map_err(|cause| cause.to_string())
            })
        });
        match started.join().expect("no panic") {
            Ok(is_well) => assert!(is_well),
            Err(why) => assert!(why.contains("seccomp"), "{why}"),
        }
    }

    #[test]
    fn sockets_to_other_programs_are_there_where_they_are_to_be() {
        for may in [false, true] {
            let within = thread::spawn(move || {
                let code = |cause: io::Error| cause.raw_os_error();
                let made = || (UnixDatagram::unbound().map(drop).map_err(code), UnixStream::pair().is_ok());
                restrict(false, may).map(|()| made())
            });
            match within.join().expect("no panic") {
                Ok(made) if may => assert_eq!(made, (Ok(()), true)),
                Ok(made) => assert_eq!(made, (Err(Some(libc::EAFNOSUPPORT)), true)),
                Err(why) => eprintln!("this kernel has no seccomp, so that nothing is judged: {why}"),
            }
        }
    }
}
