//! Envoy accepts every resource that the encoders produce, without warnings, and what it would reject is
//! rejected by our own validation rules first.
//!
//! `--mode validate` on a bootstrap with static resources applies the same checks as xDS and prints all
//! warnings.

#![cfg(test)]

mod clusters;
mod listeners;
mod meshes;
mod routes;
mod validate;

use topsail::xds::json::Printer;
use topsail::xds::{Resource, rules};

use crate::validate::{Statics, envoys, newest, validate};

#[test]
fn clusters_are_accepted() {
    accepted(&clusters::all());
}

#[test]
fn listeners_are_accepted() {
    accepted(&listeners::all());
}

#[test]
fn routes_are_accepted() {
    accepted(&routes::all());
}

#[test]
fn bookinfo_resources_are_accepted() {
    sets_are_accepted(&meshes::bookinfo());
}

#[test]
fn resources_for_every_mode_are_accepted() {
    sets_are_accepted(&meshes::everything());
}

#[test]
fn the_bundled_proxy_reads_every_field() {
    let sets = [meshes::bookinfo(), meshes::everything()].concat();
    let fixed = [clusters::all(), listeners::all(), routes::all()].concat();
    let all = sets.iter().flat_map(|(_, resources)| resources).chain(&fixed);
    let mut unread: Vec<_> = all
        .filter_map(|resource| topsail::proxy::takes(resource).err())
        .collect();
    unread.sort();
    unread.dedup();
    assert_eq!(unread, [""; 0]);
}

#[test]
fn resources_that_envoy_rejects_fail_validation() {
    let broken = [clusters::broken(), listeners::broken(), routes::broken()].concat();
    let envoy = newest();
    let disagreed = broken.iter().filter_map(|resource| {
        let (theirs, ours) = (
            validate(&envoy, &statics(std::slice::from_ref(resource))),
            rules::check(resource),
        );
        (theirs.is_ok() || ours.is_ok()).then(|| format!("{}: Envoy {theirs:?}, we {ours:?}", resource.name))
    });
    assert_eq!(disagreed.collect::<Vec<_>>(), [""; 0]);
}

/// All resources satisfy the validation rules, and both Envoy versions accept them without warnings.
fn accepted(resources: &[Resource]) {
    for resource in resources {
        assert_eq!(rules::check(resource), Ok(()), "{}", resource.name);
    }
    let statics = statics(resources);
    for envoy in envoys() {
        if let Err(words) = validate(&envoy, &statics) {
            panic!("{}: {words}", envoy.display());
        }
    }
}

/// Like [`accepted`], for the resources of several proxies.
fn sets_are_accepted(sets: &[(String, Vec<Resource>)]) {
    for (proxy, resources) in sets {
        println!("{proxy}: {} resources", resources.len());
        accepted(resources);
    }
}

fn statics(resources: &[Resource]) -> Statics {
    let printer = Printer::new().unwrap();
    let mut statics = Statics::default();
    for Resource { kind, body, .. } in resources {
        statics.add(*kind, printer.to_json(kind.type_url(), body).unwrap());
    }
    statics
}
