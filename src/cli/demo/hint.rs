//! Finds a line to suggest editing, to see traffic shift.

use std::path::Path;

use super::directory::objects;
use crate::api::virtual_service::{HttpRouteDestination, VirtualService};
use crate::api::{Object, Spec};

/// A line to edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// `path:line`.
    pub place: String,
    /// The text of the line.
    pub text: String,
    /// What the line means.
    pub meaning: String,
}

/// Finds the first weight of the last route with several destinations, preferably one of `reviews`. Routes
/// match in order, so the last one applies to requests without a more specific match.
pub(super) fn find(directory: &Path) -> Option<Hint> {
    let (objects, _) = objects(directory);
    let weighted = objects
        .iter()
        .filter_map(|object| Some((object, last_weighted(virtual_service(object)?)?)));
    let (object, (at, route)) = weighted.max_by_key(|(object, _)| &*object.id.name == "reviews")?;
    let first = route.first()?;
    let (line, _) = object
        .place(format!("spec.http[{at}].route[0].weight").as_str())
        .position();
    let shares = route
        .iter()
        .map(|destination| format!("{} {}", name(destination), destination.weight));
    Some(Hint {
        place: format!("{}:{line}", object.document.source.origin),
        text: format!("weight: {}", first.weight),
        meaning: format!("weights are now {}", shares.collect::<Vec<_>>().join(", ")),
    })
}

fn virtual_service(object: &Object) -> Option<&VirtualService> {
    match &object.spec {
        Spec::VirtualService(virtual_service) => Some(virtual_service),
        Spec::ConfigMap(_)
        | Spec::Service(_)
        | Spec::EndpointSlice(_)
        | Spec::Endpoints(_)
        | Spec::ServiceEntry(_)
        | Spec::WorkloadEntry(_)
        | Spec::WorkloadGroup(_)
        | Spec::Sidecar(_)
        | Spec::DestinationRule(_)
        | Spec::PeerAuthentication(_) => None,
    }
}

fn last_weighted(virtual_service: &VirtualService) -> Option<(usize, &[HttpRouteDestination])> {
    let routes = virtual_service
        .http
        .iter()
        .map(|http| http.route.as_slice())
        .enumerate();
    routes.rev().find(|(_, route)| route.len() > 1)
}

fn name(destination: &HttpRouteDestination) -> &str {
    match &destination.destination {
        Some(destination) if destination.subset.is_empty() => &destination.host,
        Some(destination) => &destination.subset,
        None => "?",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn hint_names_the_line_in_the_sample() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bookinfo/config");
        let hint = find(&sample).unwrap();
        let (path, line) = hint.place.rsplit_once(':').unwrap();
        assert!(path.ends_with("examples/bookinfo/config/reviews.yaml"), "{path}");
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
        assert_eq!(line.trim(), hint.text);
        assert_eq!(hint.meaning, "weights are now v1 60, v2 30, v3 10");
    }

    #[test]
    fn no_hint_without_weights() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path()), None);
        let one = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\n\
            spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}\n";
        fs::write(folder.path().join("a.yaml"), one).unwrap();
        assert_eq!(find(folder.path()), None);
    }
}
