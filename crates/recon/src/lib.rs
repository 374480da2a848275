//! Set reconciliation: two nodes find out what each has that the other lacks, at a cost that
//! follows the difference and hardly the size of their sets.
//!
//! # The idea
//!
//! Think of every element as a number `z` in a field, and of a set as its *characteristic
//! polynomial*, the product of `x - z` over all elements. Divide the polynomials of two sets: equal
//! factors cancel, and what is left is a fraction whose numerator has the elements only the first
//! set has as roots and whose denominator those only the second has. If the sets differ in five
//! elements the fraction has five unknown coefficients, so five of its values are enough to find
//! it, and the sets may have millions of elements in common. The values are quotients of
//! *samples*, values of the polynomials at points both agreed on; each node can keep its own
//! samples ready. One value more tells whether there were more than five differences after all.
//! (Y. Minsky, A. Trachtenberg, R. Zippel, *Set reconciliation with nearly optimal communication
//! complexity*, IEEE Transactions on Information Theory 49, 2003.)
//!
//! For more differences the sets are cut into parts until a part has few enough: by the first
//! bits of the elements, two more at every step, which makes a tree. Each node of it keeps its own
//! count and samples, and as samples are products, an insert multiplies those on one path.
//! (Y. Minsky, A. Trachtenberg, *Practical set reconciliation*, Allerton 2002.) This is what the
//! SKS keyserver did first and what its network has spoken since; the second generation of its
//! protocol differs in field, elements and manners.
//!
//! # The parts, as data flows
//!
//! * [`field`]: arithmetic modulo a prime of any size.
//! * [`poly`]: polynomials over it, their common divisors, and their roots.
//! * [`solve`]: from two sets of samples to the difference.
//! * [`element`]: numbers, set members and the prefixes that name parts of a set.
//! * [`dataset`]: which field, which points, which manners. A dataset is a value; nothing in here asks
//!   which one it has.
//! * [`tree`]: count and samples of every part of a set. A session asks for them through
//!   [`tree::Nodes`]; [`tree::Tree`] keeps everything in memory.
//! * [`wire`]: messages and bytes, and every limit on them.
//! * [`session`]: handshake, walker and solver.
//! * [`random`]: random numbers from a seed.
//!
//! # What is deliberately absent
//!
//! There is no input or output, no clock, no thread, no randomness of its own and no word about
//! what the elements stand for. Bytes, the time and seeds come in; bytes, and when to come back,
//! go out. So a session runs alike behind a socket, in a simulation of thirty nodes, and in a
//! fuzzer. Nothing is secret: no operation runs in constant time.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use keyrink_recon::dataset::Dataset;
//! use keyrink_recon::element::Prefix;
//! use keyrink_recon::session::{Action, Budget, Session, Solver, Walker};
//! use keyrink_recon::tree::Tree;
//! use keyrink_recon::wire::FrameReader;
//!
//! let dataset = Arc::new(Dataset::v1("example"));
//! let set = |bytes: &[u8]| {
//!     let elements = bytes.iter().map(|byte| dataset.element_from_bytes(&[*byte; 16]).unwrap());
//!     Tree::build(dataset.clone(), elements).unwrap()
//! };
//! let (budget, frames) = (Budget::default(), || FrameReader::new(0));
//! let roots = vec![Prefix::ROOT];
//! let now = Duration::ZERO;
//! let mut walker = Walker::new(dataset.clone(), set(&[1, 2, 3]), roots.clone(), budget, 1, frames(), now);
//! let mut solver = Solver::new(dataset.clone(), set(&[2, 3, 4]), roots, budget, 2, frames(), now);
//!
//! let (mut walked, mut solved) = (None, None);
//! while walked.is_none() || solved.is_none() {
//!     match walker.poll(now) {
//!         Action::Send(bytes) => solver.receive(now, &bytes),
//!         Action::Wait(_) => {}
//!         Action::Finish(outcome) => walked = walked.or(Some(outcome)),
//!     }
//!     match solver.poll(now) {
//!         Action::Send(bytes) => walker.receive(now, &bytes),
//!         Action::Wait(_) => {}
//!         Action::Finish(outcome) => solved = solved.or(Some(outcome)),
//!     }
//! }
//! let element = |byte: u8| dataset.element_from_bytes(&[byte; 16]).unwrap();
//! assert_eq!(walked.unwrap().missing, [element(4)]);
//! assert_eq!(solved.unwrap().missing, [element(1)]);
//! ```

pub mod dataset;
pub mod element;
pub mod field;
pub mod poly;
pub mod random;
pub mod session;
pub mod solve;
pub mod tree;
pub mod wire;
