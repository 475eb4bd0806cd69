//! Special functions of statistics. The error function and the logarithm of the gamma function are those
//! of `libm`; the others follow the expansions named at each.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Terms of a series or continued fraction at the most. For shapes up to 10^8 fewer suffice.
const TERMS: usize = 100_000;

/// Smaller than what a sum or fraction can show.
const EPSILON: f64 = 1e-16;

/// Keeps Lentz's denominators from 0.
const TINY: f64 = 1e-300;

/// `ln Γ(x)` for x > 0.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// `ln B(a, b)` for a, b > 0.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The standard normal distribution function: `Φ(x) = erfc(-x / √2) / 2`, exact in both tails.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// The standard normal quantile: `Φ⁻¹(p)`, relative error about 1e-16 (Wichura 1988, algorithm AS 241,
/// PPND16). -∞ at 0, +∞ at 1, NaN outside of [0, 1].
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(0.180_625 - q * q, &CENTRE);
    }
    let tail = p.min(1.0 - p);
    if tail == 0.0 {
        return q.signum() * f64::INFINITY;
    }
    let r = (-tail.ln()).sqrt();
    let value = if r <= 5.0 { ratio(r - 1.6, &MIDDLE) } else { ratio(r - 5.0, &FAR) };
    value.copysign(q)
}

/// Numerator and denominator of a rational approximation, lowest power first.
type Rational = ([f64; 8], [f64; 8]);

fn ratio(x: f64, (above, below): &Rational) -> f64 {
    let horner = |coefficients: &[f64; 8]| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
    horner(above) / horner(below)
}

#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "as published")]
const CENTRE: Rational = (
    [
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ],
    [
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ],
);

#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "as published")]
const MIDDLE: Rational = (
    [
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ],
    [
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ],
);

#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "as published")]
const FAR: Rational = (
    [
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ],
    [
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ],
);

/// The upper regularised incomplete gamma function `Q(a, x) = Γ(a, x) / Γ(a)` for a > 0 and x ≥ 0, by the
/// series of P below a + 1 and Lentz's continued fraction above (Press et al., Numerical Recipes, 6.2).
/// NaN for other arguments.
pub fn gamma_q(a: f64, x: f64) -> f64 {
    if !(a > 0.0 && x >= 0.0) {
        return f64::NAN;
    }
    if x == 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 { 1.0 - scale * gamma_series(a, x) } else { scale * gamma_fraction(a, x) }
}

fn gamma_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut shape) = (1.0 / a, 1.0 / a, a);
    for _ in 0..TERMS {
        shape += 1.0;
        term *= x / shape;
        sum += term;
        if term < sum * EPSILON {
            break;
        }
    }
    sum
}

fn gamma_fraction(a: f64, x: f64) -> f64 {
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut value = d;
    for step in 1..TERMS {
        let step = super::real_len(step);
        let an = -step * (step - a);
        b += 2.0;
        d = 1.0 / away(an * d + b);
        c = away(b + an / c);
        value *= d * c;
        if (d * c - 1.0).abs() < EPSILON {
            break;
        }
    }
    value
}

fn away(x: f64) -> f64 {
    if x.abs() < TINY { TINY } else { x }
}

/// The regularised incomplete beta function `I_x(a, b)` for a, b > 0 and x in [0, 1], by Lentz's continued
/// fraction (Press et al., Numerical Recipes, 6.4). NaN for other arguments.
pub fn beta_i(a: f64, b: f64, x: f64) -> f64 {
    if !(a > 0.0 && b > 0.0 && (0.0..=1.0).contains(&x)) {
        return f64::NAN;
    }
    if x == 0.0 || x == 1.0 {
        return x;
    }
    let scale = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        scale * beta_fraction(a, b, x) / a
    } else {
        1.0 - scale * beta_fraction(b, a, 1.0 - x) / b
    }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..TERMS {
        let m = super::real_len(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            factor = d * c;
            value *= factor;
        }
        if (factor - 1.0).abs() < EPSILON {
            break;
        }
    }
    value
}

/// The chance that a chi-square variable of `degrees` exceeds `statistic`: `Q(degrees / 2, statistic / 2)`.
pub fn chi_square_tail(degrees: f64, statistic: f64) -> f64 {
    gamma_q(0.5 * degrees, 0.5 * statistic)
}

/// The chance that Kolmogorov's limit variable exceeds x: `2 Σ (-1)^(k-1) exp(-2 k² x²)`; for small x by the
/// theta function's other series, which converges faster there (Marsaglia, Tsang, Wang 2003, eq. 1 and 2).
pub fn kolmogorov_tail(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x < 0.04 {
        return 1.0;
    }
    if x < 1.0 {
        let term = |k: f64| (-(2.0 * k - 1.0).powi(2) * PI * PI / (8.0 * x * x)).exp();
        let sum: f64 = [1.0, 2.0, 3.0, 4.0].into_iter().map(term).sum();
        return 1.0 - (2.0 * PI).sqrt() / x * sum;
    }
    let term = |k: f64, sign: f64| sign * (-2.0 * k * k * x * x).exp();
    2.0 * (term(1.0, 1.0) + term(2.0, -1.0) + term(3.0, 1.0) + term(4.0, -1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, relative: f64) {
        assert!((found - expected).abs() <= relative * expected.abs() + 1e-300, "{found:e}, expected {expected:e}");
    }

    // The expected values of this module are those of SciPy 1.17, to all digits of f64.

    #[test]
    fn the_normal_distribution_and_its_quantile_are_exact_into_the_tails() {
        for (p, x) in [
            (1e-300, -37.0470962993612),
            (1e-20, -9.262340089798409),
            (1e-5, -4.264890793922825),
            (0.02425, -1.972961051311885),
            (0.3, -0.5244005127080409),
            (0.8, 0.8416212335729143),
            (0.975, 1.959963984540054),
            (1.0 - 1e-9, 5.997807019601637),
        ] {
            close(normal_quantile(p), x, 1e-14);
            close(normal_cdf(x), p, 1e-12);
        }
        close(normal_cdf(-10.0), 7.61985302416047e-24, 1e-12);
        assert_eq!((normal_quantile(0.5), normal_quantile(0.0)), (0.0, f64::NEG_INFINITY));
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        assert!(normal_quantile(1.1).is_nan() && normal_quantile(f64::NAN).is_nan());
    }

    #[test]
    fn incomplete_gamma_and_beta_functions_are_those_of_the_reference() {
        for (a, x, q) in [
            (0.5, 0.1, 0.6547208460185768),
            (0.5, 3.0, 0.014305878435429641),
            (3.0, 2.0, 0.6766764161830634),
            (3.0, 12.0, 0.0005222580500328981),
            (100.0, 90.0, 0.84177901081357),
            (100.0, 140.0, 0.00016105717471255715),
            (1e5, 100_300.0, 0.17136368874879243),
            (0.5, 50.0, 1.5239706048320995e-23),
        ] {
            close(gamma_q(a, x), q, 1e-9);
        }
        for (a, b, x, i) in [
            (0.5, 0.5, 0.3, 0.36901011956554536),
            (2.0, 5.0, 0.9, 0.999945),
            (30.0, 20.0, 0.55, 0.2328886067865693),
            (5_000.0, 5_100.0, 0.49, 0.15505519246383542),
            (1.0, 1.0, 0.25, 0.25),
            (2.0, 3.0, 1e-6, 5.999992000002998e-12),
        ] {
            close(beta_i(a, b, x), i, 1e-9);
        }
        assert_eq!((gamma_q(2.0, 0.0), gamma_q(2.0, f64::INFINITY)), (1.0, 0.0));
        assert!(gamma_q(0.0, 1.0).is_nan() && beta_i(1.0, 1.0, 2.0).is_nan());
    }

    #[test]
    fn the_limit_of_kolmogorov_is_that_of_the_reference_where_its_series_meet() {
        for (x, tail) in [
            (0.03, 1.0),
            (0.3, 0.9999906941986655),
            (0.5, 0.9639452436648751),
            (0.8, 0.5441424115741981),
            (0.99, 0.2808738392255489),
            (1.0, 0.26999967167735456),
            (1.2, 0.11224966667072497),
            (2.5, 7.453306344157342e-06),
        ] {
            close(kolmogorov_tail(x), tail, 1e-12);
        }
    }
}
