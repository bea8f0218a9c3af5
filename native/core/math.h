// Functions of our own in plain operations, so that every machine gives the same bits.
#pragma once

namespace tessera {

// Natural logarithm of a positive normal f32, computed in double and rounded once.
float log_f32(float x);

// In double, rounded once.
float tanh_f32(float x);

// In double, good to about 1e-15: x > 0; |angle| up to 1e6.
double log_f64(double x);
double exp_f64(double x);
void sin_cos_f64(double angle, double* sin, double* cos);

}  // namespace tessera
