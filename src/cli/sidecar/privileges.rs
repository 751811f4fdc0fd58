//! Privileges of a sidecar's processes: root is used only to set up interception.

use anyhow::Context;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::cli::Usage;
use crate::cli::iptables::traffic::PROXY;
use crate::cli::value::Owner;

/// User and group of this process.
pub(super) fn current() -> Owner {
    Owner {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    }
}

/// User and group of the data plane: the given ones; otherwise, for root, those of Istio's sidecar; otherwise
/// those of this process.
///
/// # Errors
/// If switching requires root.
pub(super) fn of_proxy(given: Option<Owner>) -> Result<Owner, Usage> {
    let current = current();
    let default = match current.uid {
        0 => Owner { uid: PROXY, gid: PROXY },
        _ => current,
    };
    check_switch("--user", given.unwrap_or(default), current)
}

/// User and group of the application: the given ones, otherwise those of this process.
///
/// # Errors
/// If switching requires root.
pub(super) fn of_application(given: Option<Owner>) -> Result<Owner, Usage> {
    let current = current();
    check_switch("--app-user", given.unwrap_or(current), current)
}

fn check_switch(flag: &str, wanted: Owner, current: Owner) -> Result<Owner, Usage> {
    if current.uid == 0 || wanted == current {
        return Ok(wanted);
    }
    let (Owner { uid, gid }, Owner { uid: own, gid: own_gid }) = (wanted, current);
    Err(Usage(format!(
        "{flag} {uid}:{gid} requires root, but the current user is {own}:{own_gid}: start the container as root or omit {flag}"
    )))
}

/// Switches to a user permanently and drops all capabilities except, with `net_admin`, `CAP_NET_ADMIN`, which
/// TPROXY requires. Linux credentials are per thread, so the process must still be single-threaded.
///
/// # Errors
/// If the system does not permit it.
pub(super) fn become_user(user: Owner, net_admin: bool) -> anyhow::Result<()> {
    let Owner { uid, gid } = user;
    let failed = || {
        format!(
            "cannot switch to user {uid}:{gid}: this requires the capabilities SETUID and SETGID, which containers have \
             unless they are dropped"
        )
    };
    if current() != user {
        let gid = Gid::from_raw(gid);
        set_thread_groups(&[]).with_context(failed)?;
        set_thread_res_gid(gid, gid, gid).with_context(failed)?;
    }
    if current() != user {
        let uid = Uid::from_raw(uid);
        set_keep_capabilities(net_admin).with_context(failed)?;
        set_thread_res_uid(uid, uid, uid).with_context(failed)?;
        keep_only(net_admin).context("failed to drop capabilities")?;
    }
    set_no_new_privs(true).context("failed to set no_new_privs for the data plane")
}

/// Drops all capabilities or, with `net_admin`, all but `CAP_NET_ADMIN`, which is made ambient so that
/// executed programs inherit it.
fn keep_only(net_admin: bool) -> rustix::io::Result<()> {
    let kept = match net_admin {
        true => CapabilitySet::NET_ADMIN,
        false => CapabilitySet::empty(),
    };
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    set_capabilities(None, sets)?;
    match net_admin {
        true => configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_can_switch_users() {
        let (root, other) = (Owner { uid: 0, gid: 0 }, Owner { uid: 7, gid: 8 });
        assert_eq!(check_switch("--user", other, root).unwrap(), other);
        assert_eq!(check_switch("--user", other, other).unwrap(), other);
        let refused = check_switch("--user", root, other).unwrap_err().to_string();
        assert!(
            refused.contains("--user 0:0 requires root, but the current user is 7:8"),
            "{refused}"
        );
    }
}
