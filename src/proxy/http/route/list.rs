//! The routes of a virtual host, indexed so that the time to find the first match hardly depends on their number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{PathMatch, Route};

/// Up to this many routes are searched linearly.
const FEW: usize = 8;

/// Routes, in order.
#[derive(Debug, Default)]
pub(crate) struct RouteList {
    routes: Vec<Arc<Route>>,
    /// `None` if there are few.
    index: Option<Index>,
}

impl RouteList {
    /// A list of these routes.
    pub(crate) fn new(routes: Vec<Arc<Route>>) -> Self {
        let index = (routes.len() > FEW).then(|| Index::new(&routes));
        Self { routes, index }
    }

    /// The first route for this path that `takes` accepts.
    pub(super) fn find(&self, path: &str, takes: impl Fn(&Route) -> bool) -> Option<&Arc<Route>> {
        match &self.index {
            None => self.routes.iter().find(|route| takes(route)),
            Some(index) => {
                let places = index.first(path, |place| self.routes.get(place).is_some_and(|route| takes(route)));
                places.and_then(|place| self.routes.get(place))
            }
        }
    }
}

/// Which routes may match a path, by their positions in the list, in ascending order.
#[derive(Debug, Default)]
struct Index {
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By length, of which there are few different ones, then by prefix.
    prefixes: BTreeMap<usize, HashMap<Box<str>, Vec<usize>>>,
    /// Routes that may match any path.
    others: Vec<usize>,
}

impl Index {
    fn new(routes: &[Arc<Route>]) -> Self {
        let mut index = Self::default();
        for (place, route) in routes.iter().enumerate() {
            let places = match &route.matcher.path {
                _ if route.matcher.ignore_case => &mut index.others,
                PathMatch::Exact(path) => index.exact.entry(path.clone()).or_default(),
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => {
                    let same_length = index.prefixes.entry(prefix.len()).or_default();
                    same_length.entry(prefix.clone()).or_default()
                }
                PathMatch::Regex(_) | PathMatch::Connect => &mut index.others,
            };
            places.push(place);
        }
        index
    }

    /// The first position, among the routes that may match a path, that `takes` accepts.
    fn first(&self, path: &str, takes: impl Fn(usize) -> bool) -> Option<usize> {
        let mut first = None;
        let mut look = |places: &[usize]| {
            let before = places
                .iter()
                .take_while(|place| first.is_none_or(|first| **place < first));
            if let Some(place) = before.copied().find(|place| takes(*place)) {
                first = Some(place);
            }
        };
        if let Some(places) = self.exact.get(path) {
            look(places);
        }
        for (length, prefixes) in self.prefixes.range(..=path.len()) {
            if let Some(places) = path.get(..*length).and_then(|prefix| prefixes.get(prefix)) {
                look(places);
            }
        }
        look(&self.others);
        first
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::super::{DirectResponse, Mutations, Request, RouteAction, RouteMatch};
    use super::*;
    use crate::proxy::http::filter::Overrides;

    fn route(path: PathMatch, ignore_case: bool) -> Arc<Route> {
        Arc::new(Route {
            name: "".into(),
            matcher: RouteMatch {
                path,
                ignore_case,
                headers: Vec::new(),
                query: Vec::new(),
                grpc: false,
                per_million: None,
            },
            action: RouteAction::Direct(DirectResponse {
                status: StatusCode::OK,
                body: "".into(),
            }),
            headers: Mutations::default(),
            overrides: Overrides::default(),
            tracing: None,
            stats: None,
            buffer_limit: None,
        })
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(&["a", "B", "b", "/", "é"][..]), 0..5)
            .prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    fn path_match() -> impl Strategy<Value = PathMatch> {
        (0..9, path()).prop_map(|(kind, path)| match kind {
            0 => PathMatch::Prefix("".into()),
            1 => PathMatch::Regex(Regex::new(&format!("^{path}+$")).unwrap()),
            2 => PathMatch::Connect,
            3 | 4 => PathMatch::Exact(path.into()),
            5 | 6 => PathMatch::SeparatedPrefix(path.into()),
            _ => PathMatch::Prefix(path.into()),
        })
    }

    proptest! {
        #[test]
        fn the_first_that_matches_is_found_among_few_and_many(
            paths in prop::collection::vec((path_match(), prop::bool::weighted(0.2)), 0..60),
            asked in path(),
            // What paths do not decide.
            otherwise in prop::collection::vec(prop::bool::weighted(0.7), 60),
        ) {
            let all: Vec<_> = paths.into_iter().map(|(path, ignore_case)| route(path, ignore_case)).collect();
            let (headers, method) = (http::HeaderMap::new(), http::Method::GET);
            let uri = http::Uri::from_maybe_shared(asked.clone().into_bytes()).unwrap();
            let request = Request { method: &method, uri: &uri, scheme: "http", host: "", headers: &headers, random: 0 };
            let place = |route: &Route| all.iter().position(|one| std::ptr::eq(&**one, route)).unwrap();
            let takes = |route: &Route| otherwise[place(route)] && route.matcher.matches(&request);
            let found = RouteList::new(all.clone()).find(uri.path(), takes).map(|route| place(route));
            prop_assert_eq!(found, all.iter().position(|route| takes(route)));
        }
    }

    #[test]
    fn of_many_routes_few_are_looked_at() {
        let prefix = |number| PathMatch::Prefix(format!("/route-{number}/").into());
        let mut all: Vec<_> = (0..1000).map(|number| route(prefix(number), false)).collect();
        all.push(route(PathMatch::Prefix("/".into()), false));
        let looked_at = std::cell::Cell::new(0);
        let list = RouteList::new(all.clone());
        let found = list.find("/route-990/x", |_| {
            looked_at.set(looked_at.get() + 1);
            true
        });
        assert!(Arc::ptr_eq(found.unwrap(), &all[990]));
        assert_eq!(looked_at.get(), 2, "the one that any path matches, and that");
    }
}
