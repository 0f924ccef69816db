"""data.qpdata without a JVM: the Java serialization stream in which QuPath keeps an image's objects."""
