//go:build race

package main

// raceDetector says that the tests, and so the built program, look for data races.
const raceDetector = true
