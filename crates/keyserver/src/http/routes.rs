//! The routes of the server, and which of them a path belongs to.

use super::throttle;
use crate::metrics::RouteFigures;
use axum::Router;
use axum::routing::MethodRouter;

/// A router that remembers the patterns it was made of, so that requests can be counted by pattern.
pub struct Routes<S = ()> {
    router: Router<S>,
    patterns: Vec<&'static str>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes: everything is answered with 404.
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            patterns: Vec::new(),
        }
    }

    /// Adds a route; `pattern` in the form of axum: `/pks/lookup`, `/pks/v2/index/{identity}`.
    pub fn route(mut self, pattern: &'static str, methods: MethodRouter<S>) -> Self {
        self.patterns.push(pattern);
        Self {
            router: self.router.route(pattern, methods),
            patterns: self.patterns,
        }
    }

    /// Adds the routes of another part.
    pub fn merge(mut self, other: Self) -> Self {
        self.patterns.extend(other.patterns);
        Self {
            router: self.router.merge(other.router),
            patterns: self.patterns,
        }
    }

    /// Gives the handlers what they share.
    pub fn with_state<T>(self, state: S) -> Routes<T> {
        Routes {
            router: self.router.with_state(state),
            patterns: self.patterns,
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl Routes {
    /// The router and the figures of its routes.
    pub(super) fn into_parts(self) -> (Router, Figures) {
        (self.router, Figures::new(self.patterns))
    }
}

/// The figures and the cost of every route, found by path: asking the router afterwards which pattern it matched would cost
/// more than the router itself.
pub(super) struct Figures {
    routes: Vec<Pattern>,
    unknown: RouteFigures,
}

struct Pattern {
    /// The part before the first parameter.
    literal: &'static str,
    has_parameters: bool,
    figures: RouteFigures,
    cost: u32,
}

impl Figures {
    fn new(patterns: Vec<&'static str>) -> Self {
        let mut routes: Vec<_> = patterns
            .into_iter()
            .map(|pattern| {
                let literal = pattern.split('{').next().unwrap_or(pattern);
                Pattern {
                    literal,
                    has_parameters: literal != pattern,
                    figures: RouteFigures::new(pattern),
                    cost: throttle::cost(pattern),
                }
            })
            .collect();
        // The longest first: it is the one that the router prefers.
        routes.sort_by_key(|route| std::cmp::Reverse(route.literal.len()));
        Self {
            routes,
            unknown: RouteFigures::new(UNKNOWN),
        }
    }

    /// The figures of the route that this path belongs to, and what a request to it costs.
    pub(super) fn of(&self, path: &str) -> (&RouteFigures, u32) {
        let matches = |route: &&Pattern| {
            path.strip_prefix(route.literal)
                .is_some_and(|rest| rest.is_empty() || route.has_parameters)
        };
        match self.routes.iter().find(matches) {
            Some(route) => (&route.figures, route.cost),
            None => (&self.unknown, throttle::cost(UNKNOWN)),
        }
    }
}

/// Stands for all paths that no route knows.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;

    #[test]
    fn paths_belong_to_patterns() {
        let routes = ["/", "/pks/lookup", "/pks/v2/index/{identity}", "/pks/v2/{*rest}"];
        let routes = routes.iter().fold(Routes::<()>::new(), |routes, pattern| {
            routes.route(pattern, get(async || ()))
        });
        let figures = routes.into_parts().1;
        for (path, route) in [
            ("/", "/"),
            ("/pks/lookup", "/pks/lookup"),
            ("/pks/lookups", UNKNOWN),
            ("/pks/v2/index/a@b", "/pks/v2/index/{identity}"),
            ("/pks/v2/other", "/pks/v2/{*rest}"),
            ("/other", UNKNOWN),
            ("", UNKNOWN),
        ] {
            assert_eq!(figures.of(path).0.route(), route, "{path}");
        }
    }
}
