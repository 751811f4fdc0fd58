//! Whom a sidecar runs as: root sets up interception and nothing else.

use anyhow::Context;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::cli::Usage;
use crate::cli::iptables::traffic::PROXY;
use crate::cli::value::Owner;

/// Who this process is.
pub(super) fn current() -> Owner {
    Owner {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    }
}

/// Whom a program of the sidecar's runs as: as it is said, else, for root, as Istio's sidecars do, else as this process.
///
/// # Errors
/// When it takes root.
pub(super) fn of_proxy(said: Option<Owner>) -> Result<Owner, Usage> {
    let current = current();
    let usual = match current.uid {
        0 => Owner { uid: PROXY, gid: PROXY },
        _ => current,
    };
    possible("--user", said.unwrap_or(usual), current)
}

/// Whom the application runs as: as it is said, else as this process.
///
/// # Errors
/// When it takes root.
pub(super) fn of_application(said: Option<Owner>) -> Result<Owner, Usage> {
    let current = current();
    possible("--app-user", said.unwrap_or(current), current)
}

fn possible(flag: &str, wanted: Owner, current: Owner) -> Result<Owner, Usage> {
    if current.uid == 0 || wanted == current {
        return Ok(wanted);
    }
    let (Owner { uid, gid }, Owner { uid: own, gid: own_gid }) = (wanted, current);
    Err(Usage(format!(
        "{flag} {uid}:{gid} requires root, but the current user is {own}:{own_gid}: start the container as root or omit {flag}"
    )))
}

/// Becomes a user for good, with no capabilities but that to change the network (`CAP_NET_ADMIN`, which TPROXY takes),
/// if it is to be kept. The process may have no other thread yet: each has privileges of its own.
///
/// # Errors
/// When the system does not let it.
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

/// Gives up every capability, or all but `CAP_NET_ADMIN`, which programs that are run then have, too.
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
    fn root_is_whoever_is_wanted_and_others_are_themselves() {
        let (root, other) = (Owner { uid: 0, gid: 0 }, Owner { uid: 7, gid: 8 });
        assert_eq!(possible("--user", other, root).unwrap(), other);
        assert_eq!(possible("--user", other, other).unwrap(), other);
        let refused = possible("--user", root, other).unwrap_err().to_string();
        assert!(
            refused.contains("--user 0:0 requires root, but the current user is 7:8"),
            "{refused}"
        );
    }
}
