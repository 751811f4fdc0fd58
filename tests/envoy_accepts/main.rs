//! Envoy takes every resource that the encoders make, in silence; and what it would refuse, our own rules
//! refuse before.
//!
//! `--mode validate` over a bootstrap with the resources in it gives the verdict that they would get over
//! xDS, and prints every warning.

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
fn what_the_proxies_of_bookinfo_are_sent_is_accepted() {
    sets_are_accepted(&meshes::bookinfo());
}

#[test]
fn what_proxies_of_every_mode_are_sent_is_accepted() {
    sets_are_accepted(&meshes::everything());
}

#[test]
fn the_bundled_proxy_reads_every_field_that_it_is_sent() {
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
fn what_envoy_refuses_is_refused_before() {
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

/// Every resource keeps the rules, and both Envoys take all of them without a word.
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

/// As [`accepted`], for what several proxies are sent.
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
