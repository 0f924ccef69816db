package javafx.beans.value

interface ChangeListener {
    void changed(Object observable, Object before, Object after)
}
